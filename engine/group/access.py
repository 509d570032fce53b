"""Which hosts may open a volume: a list a volume, empty as long as nobody was put on it.

    access    name\\0u64 volume id, host (protocol/hosts.py)    `ro`, `rw`; nothing: listed, and may not

Rules. A volume whose list is empty is open to whoever reaches the door, as before there were lists. The list
is this site's own: what a certificate or a user's number means is too. Who runs the site and its machine
(root and the daemon's user) may open every volume: the site's own commands are such hosts, and they read its
files anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from struct import error as StructError

from engine.group.site_state import U64, SiteState
from protocol.errors import Refused, UsageError
from protocol.hosts import Right, parse_host, user_host
from protocol.limits import HOSTS_LISTED_MAX

TABLE = "access"
BAD_ROW = (UsageError, ValueError, StructError)
ROOT = 0

Entries = Mapping[str, Right]


class AccessLists:
    """Those of one site."""

    def __init__(self, state: SiteState) -> None:
        self._state = state
        self._always = frozenset({user_host(ROOT), user_host(os.geteuid())})

    def all(self) -> dict[tuple[str, int], dict[str, Right]]:
        """Every list that is not empty, by group and volume."""
        found: dict[tuple[str, int], dict[str, Right]] = {}
        for key, value in self._state.notes(TABLE).items():
            try:
                check_row(key.partition(b"\0")[2], value)
            except BAD_ROW:
                continue  # its group is closed (engine/group/stored_rows.py), and no other may be for it
            group, volume, host = entry_of(key)
            found.setdefault((group, volume), {})[host] = Right(value.decode())
        return found

    def of(self, group: str, volume: int) -> dict[str, Right]:
        """One, by host."""
        prefix = _key(group, volume)
        rows = self._state.notes(TABLE, prefix).items()
        return {key[len(prefix) :].decode(): Right(value.decode()) for key, value in sorted(rows)}

    def right(self, entries: Entries, host: str) -> Right:
        """What a list lets a host do."""
        if not entries or host in self._always:
            return Right.WRITE
        return entries.get(host, Right.NONE)

    def put(self, group: str, volume: int, host: str, right: Right) -> None:
        """Put a host on a list, or change what it may. Refused if the list is full."""
        entries = self.of(group, volume)
        if host not in entries and len(entries) >= HOSTS_LISTED_MAX:
            raise Refused(
                f"{HOSTS_LISTED_MAX} hosts are on the list already",
                subject=group,
                next_step="take one off it: `farshore volume disallow G/V WHO`",
            )
        self._state.put_notes(TABLE, {_key(group, volume, host): right.value.encode()})

    def remove(self, group: str, volume: int, hosts: Iterable[str]) -> None:
        """Take hosts off a list; one that is not on it is fine."""
        self._state.remove_notes(TABLE, (_key(group, volume, host) for host in hosts))


def _key(group: str, volume: int, host: str = "") -> bytes:
    return group.encode() + b"\0" + U64.pack(volume) + host.encode()


def entry_of(key: bytes) -> tuple[str, int, str]:
    """Group, volume and host of a key. ValueError if it is none, `struct.error` if it is too short."""
    group, _, rest = key.partition(b"\0")
    return group.decode(), int(U64.unpack(rest[: U64.size])[0]), rest[U64.size :].decode()


def check_row(key: bytes, value: bytes) -> None:
    """Raises unless this is a row, its key without the group."""
    _, _, host = entry_of(b"\0" + key)
    if parse_host(host) != host:
        raise ValueError("hosts are written in full")
    Right(value.decode())
