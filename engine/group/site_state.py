"""What only this site knows and must not forget: roles, heads, pairs and closed exports.

Kept in a small store of its own beside the groups' indexes: the indexer holds an index's write lock for as
long as a checkpoint takes, and neither a new timeline nor a takeover may wait for that (docs/decisions/0004).

    groups    name    row (group id hex, role, head timeline, UTC ns of creation)
    pairs     name    row (peer, mode, state, reason, fallen back)
    closed    name\\0u64 volume id    reason
    heads     name\\0u64 timeline    \\0: it was the head, and the index need not know it yet; \\1: also, its
              frames came back from another site though this one wrote them
    shipped   name    u64 timeline: the newest head of which a peer was sent frames
    leases    name\\0lease    row (timeline, position): see `engine.retention.leases`
    lease_ends    name\\0lease    u64 UTC ns: see `engine.retention.timed_leases`
    drops     name\\0u64 timeline    row ((timeline, position), …): branches that are being dropped
    clones    see `engine.group.clone_rows`
    drills, proofs, told_drills, drill_plans   see `engine.integrity.drills`, `engine.integrity.proofs`
    heard     name    u64 generation: the newest authority that a peer came with
    jobs, job_givers, news   see `daemon.jobs`, `daemon.alerts.peer_news`
    damage, rounds   see `engine.integrity.damage`, `engine.integrity.verify_rounds`
    access, accepted   see `engine.group.access`, `engine.history.accepted`
    copy_marks, verified_by   name\\0u64 copy id    row: see `engine.copies.copy_marks`

Every write is durable on return (invariant 9).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from struct import Struct
from struct import error as StructError

from engine.peering.pair_states import Mode, PairState
from engine.ports.store import ReadTransaction, Store
from protocol.bounds import AnyTimeline, GroupIdOrNone, Name, Text, UtcNs
from protocol.commands.base import check_name
from protocol.errors import Corruption, FarshoreError, NotFound, RemoteProtocolError
from protocol.limits import GENERATION_MAX, GROUPS_MAX
from protocol.positions import Cut
from protocol.rows import pack_row
from protocol.wire import RowType

SITE_TABLES = (
    "groups", "pairs", "closed", "heads", "shipped", "leases", "heard", "drops", "clones", "drills", "access",
    "jobs", "damage", "rounds", "lease_ends", "copy_marks", "accepted", "locks", "set_aside", "news",
    "proofs", "told_drills", "drill_plans", "job_givers", "verified_by",
)  # fmt: skip
U64 = Struct(">Q")
EVERY_VOLUME = 0  # in place of a volume's id: no volume is created at position 0, where a timeline begins
FOLLOWED = b"\1"


class Role(Enum):
    """What this site does for a group. DETACHED: a secondary that an operator opened to hosts while the pair
    is split; what they write is a branch until a resync says whose history stays."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    DETACHED = "detached"

    @property
    def writes(self) -> bool:
        """Whether hosts may write here."""
        return self is not Role.SECONDARY


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """A group as this site holds it. `group_id` is 16 hex digits, the same at every site; `head` 0 if it has
    no timeline yet."""

    name: str
    group_id: str
    role: Role
    head: int
    created_utc_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """A group's pair: the peer's name, the mode, the state and why it is in it. `fallen_back`: the peer may
    lack what hosts were told is written, though the mode is a synchronous one."""

    group: str
    peer: str
    mode: Mode
    state: PairState
    reason: str
    fallen_back: bool = False

    @classmethod
    def called(cls, group: str, peer: str) -> PairRow:
        """That of a pair that the peer's first call makes."""
        return cls(group=group, peer=peer, mode=Mode.ASYNC, state=PairState.COPYING, reason="")

    @property
    def strict(self) -> bool:
        """Whether it is promised that the peer has every write."""
        return self.mode is Mode.SYNC_STRICT and not self.fallen_back


_GROUP = RowType(tuple[GroupIdOrNone, Role, AnyTimeline, UtcNs])
_PAIR = RowType(tuple[Name, Mode, PairState, Text, bool])
CUT = RowType(Cut)
CUTS = RowType(tuple[Cut, ...])


class SiteState:
    """Typed rows over the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def groups(self) -> list[GroupRow]:
        """Every group whose rows can be read, by name."""
        return [row for row, _ in self._sorted_out()[0]]

    def group_names(self) -> set[str]:
        """Of both kinds."""
        with self._store.read() as transaction:
            return {key.decode("utf-8", "backslashreplace") for key, _ in rows_of(transaction, "groups")}

    def bad_groups(self) -> dict[str, FarshoreError]:
        """The others: what is wrong with a row of each, by name as far as that can be read."""
        return self._sorted_out()[1]

    def _sorted_out(self) -> tuple[list[tuple[GroupRow, PairRow | None]], dict[str, FarshoreError]]:
        """Groups and their pairs whose rows can be read; what is wrong with the others, by name."""
        good: list[tuple[GroupRow, PairRow | None]] = []
        bad: dict[str, FarshoreError] = {}
        with self._store.read() as transaction:
            rows, pairs = rows_of(transaction, "groups"), dict(rows_of(transaction, "pairs"))
        for key, value in rows:
            name = key.decode("utf-8", "backslashreplace")
            try:
                row = _group_row(name, value)
                pair = _pair_row(name, pairs[key]) if key in pairs else None
            except FarshoreError as error:
                bad[name] = error
            else:
                good.append((row, pair))
        return good, bad

    def peers_of_pairs(self) -> set[str]:
        """The names of peers that pairs are with."""
        return {pair.peer for _, pair in self._sorted_out()[0] if pair is not None}

    def roles_beside(self, peer: str) -> list[Role]:
        """What this site does for each group that is paired with a peer."""
        return [row.role for row, pair in self._sorted_out()[0] if pair is not None and pair.peer == peer]

    def group(self, name: str) -> GroupRow:
        """One group; NotFound."""
        with self._store.read() as transaction:
            value = transaction.get("groups", name.encode())
        if value is None:
            raise NotFound(f"there is no group {name} here", subject=name, next_step="`farshore status`")
        return _group_row(name, value)

    def put_group(self, row: GroupRow) -> None:
        """Add or replace a group."""
        self.put_notes("groups", {row.name.encode(): _packed_group(row)})

    def remove_group(self, name: str) -> None:
        """Forget a group in which nothing was ever written."""
        self.remove_notes("groups", [name.encode()])

    def set_head(self, name: str, head: int) -> None:
        """Set the timeline that the group appends to here; that it was the head is not forgotten when another
        one is."""
        row, key = replace(self.group(name), head=head), _head_key(name, head)
        with self._store.write() as write:
            write.put("groups", name.encode(), _packed_group(row))
            if write.get("heads", key) is None:
                write.put("heads", key, b"\0")

    def note_followed(self, name: str, timeline: int) -> None:
        """Frames that this site wrote come from another one from now on."""
        self.put_notes("heads", {_head_key(name, timeline): FOLLOWED})

    def followed(self, name: str, timeline: int) -> bool:
        """Whether they did."""
        return FOLLOWED in self.notes("heads", _head_key(name, timeline)).values()

    def heads(self, group: str) -> set[int]:
        """Timelines that were the head, as far as they are remembered."""
        prefix = group.encode() + b"\0"
        return {int(U64.unpack(key[len(prefix) :])[0]) for key in self.notes("heads", prefix)}

    def forget_heads(self, group: str, heads: Iterable[int]) -> None:
        """The index remembers them now, or they were dropped."""
        self.remove_notes("heads", (_head_key(group, head) for head in heads))

    def set_role(self, name: str, role: Role, pair: PairRow | None = None) -> None:
        """Set what this site does for a group, and what is so of its pair from then on: both or neither."""
        row = replace(self.group(name), role=role)
        with self._store.write() as write:
            write.put("groups", name.encode(), _packed_group(row))
            if pair is not None:
                write.put("pairs", name.encode(), _packed_pair(pair))

    def shipped(self, group: str) -> int:
        """The newest head of which a peer was sent frames; 0 if there is none."""
        with self._store.read() as transaction:
            value = transaction.get("shipped", group.encode())
        return 0 if value is None else int(U64.unpack(value)[0])

    def set_shipped(self, group: str, timeline: int) -> None:
        """Remember it before the first frame goes: after a power loss the peer may hold more of that timeline
        than this site."""
        self.put_notes("shipped", {group.encode(): U64.pack(timeline)})

    def heard(self, group: str) -> int:
        """The newest generation that a peer came with; 0 if there is none."""
        with self._store.read() as transaction:
            value = transaction.get("heard", group.encode())
        generation = 0 if value is None else int(U64.unpack(value)[0])
        # One that nobody could outrank is no authority's: an earlier version kept any number.
        return generation if generation <= GENERATION_MAX else 0

    def set_heard(self, group: str, generation: int) -> None:
        """Remember it: this site may take over before it holds any frame of that authority, and must then
        outrank it."""
        self.put_notes("heard", {group.encode(): U64.pack(generation)})

    def pair(self, group: str) -> PairRow | None:
        """The group's pair, if it has one."""
        with self._store.read() as transaction:
            value = transaction.get("pairs", group.encode())
        if value is None:
            return None
        return _pair_row(group, value)

    def put_pair(self, row: PairRow) -> None:
        """Add or replace a group's pair."""
        self.put_notes("pairs", {row.group.encode(): _packed_pair(row)})

    def delete_pair(self, group: str) -> None:
        """Forget a group's pair."""
        self.remove_notes("pairs", [group.encode()])

    def set_mode(self, group: str, mode: Mode, fallen_back: bool) -> None:
        """Set a pair's mode, and whether it has fallen back; NotFound without a pair."""
        if (row := self.pair(group)) is None:
            hint = f"`farshore pair create {group} --with PEER`"
            raise NotFound(f"group {group} has no pair", subject=group, next_step=hint)
        self.put_pair(replace(row, mode=mode, fallen_back=fallen_back))

    def drops(self, group: str) -> dict[int, list[tuple[int, int]]]:
        """Branches that are being dropped, by name: each timeline and the position from which on."""
        prefix = group.encode() + b"\0"
        return {
            int(U64.unpack(key[len(prefix) :])[0]): [
                (cut.timeline, cut.position) for cut in CUTS.decode(value)
            ]
            for key, value in self.notes("drops", prefix).items()
        }

    def put_drop(self, group: str, branch: int, spans: list[tuple[int, int]]) -> None:
        """Remember that a branch is being dropped."""
        self.put_notes("drops", {group.encode() + b"\0" + U64.pack(branch): pack_row(spans)})

    def remove_drop(self, group: str, branch: int) -> None:
        """It is gone."""
        self.remove_notes("drops", [group.encode() + b"\0" + U64.pack(branch)])

    def closed(self, group: str, volume: int) -> str | None:
        """Why a volume's export is closed until an operator opens it, or None."""
        with self._store.read() as transaction:
            value = transaction.get("closed", group.encode() + b"\0" + U64.pack(volume))
        return None if value is None else value.decode()

    def set_closed(self, group: str, volumes: list[int], reason: str | None) -> None:
        """Close exports with a reason, or open them (None)."""
        self.put_closed(group, dict.fromkeys(volumes, reason))

    def put_closed(self, group: str, reasons: Mapping[int, str | None]) -> None:
        """The same, each with its own reason, all or none."""
        with self._store.write() as write:
            for volume, reason in reasons.items():
                key = group.encode() + b"\0" + U64.pack(volume)
                if reason is None:
                    write.delete("closed", key)
                else:
                    write.put("closed", key, reason.encode())

    def leases(self, group: str) -> dict[str, Cut]:
        """A group's durable leases, by name."""
        prefix = group.encode() + b"\0"
        rows = self.notes("leases", prefix)
        return {key[len(prefix) :].decode(): CUT.decode(value) for key, value in rows.items()}

    def put_lease(self, group: str, name: str, cut: Cut, end_utc_ns: int | None = None) -> None:
        """Add or replace a durable lease, and when it ends, if it does."""
        key = f"{group}\0{name}".encode()
        with self._store.write() as write:
            write.put("leases", key, pack_row((cut.timeline, cut.position)))
            if end_utc_ns is not None:
                write.put("lease_ends", key, U64.pack(end_utc_ns))

    def lease_ends(self, group: str) -> dict[str, int]:
        """When durable leases of a group end, by name: UTC nanoseconds."""
        prefix = group.encode() + b"\0"
        rows = self.notes("lease_ends", prefix)
        return {key[len(prefix) :].decode(): int(U64.unpack(value)[0]) for key, value in rows.items()}

    def remove_leases(self, group: str, names: Iterable[str]) -> None:
        """Remove durable leases in one transaction; one that is not there is fine."""
        with self._store.write() as write:
            for name in names:
                key = f"{group}\0{name}".encode()
                write.delete("leases", key)
                write.delete("lease_ends", key)

    def notes(self, table: str, prefix: bytes = b"") -> dict[bytes, bytes]:
        """Rows of a table whose keys begin so; another module says what they mean."""
        with self._store.read() as transaction:
            return dict(rows_of(transaction, table, prefix))

    def put_notes(self, table: str, rows: Mapping[bytes, bytes | None]) -> None:
        """Add or replace such rows, or (None) remove them, in one transaction."""
        with self._store.write() as write:
            for key, value in rows.items():
                if value is None:
                    write.delete(table, key)
                else:
                    write.put(table, key, value)

    def remove_notes(self, table: str, keys: Iterable[bytes]) -> None:
        """Remove such rows; one that is not there is fine."""
        with self._store.write() as write:
            for key in keys:
                write.delete(table, key)


def rows_of(transaction: ReadTransaction, table: str, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
    """The rows of a table whose keys begin so, by key; every row with none."""
    cursor = transaction.cursor(table)
    rows = []
    more = cursor.set_range(prefix or b"\0")
    while more and (key := bytes(cursor.key())).startswith(prefix):
        rows.append((key, bytes(cursor.value())))
        more = cursor.next()
    return rows


def _head_key(group: str, timeline: int) -> bytes:
    return group.encode() + b"\0" + U64.pack(timeline)


def _packed_group(row: GroupRow) -> bytes:
    return pack_row((row.group_id, row.role.value, row.head, row.created_utc_ns))


def _packed_pair(row: PairRow) -> bytes:
    return pack_row((row.peer, row.mode.value, row.state.value, row.reason, row.fallen_back))


@lru_cache(GROUPS_MAX)
def _pair_row(group: str, value: bytes) -> PairRow:
    with readable("pairs", group):
        peer, mode, state, reason, fallen_back = _PAIR.decode(value)
    return PairRow(group=group, peer=peer, mode=mode, state=state, reason=reason, fallen_back=fallen_back)


@contextmanager
def readable(table: str, name: str) -> Iterator[None]:
    """While a row is read: whatever does not decode is Corruption that names the row."""
    try:
        yield
    except (RemoteProtocolError, FarshoreError, ValueError, StructError) as error:
        raise Corruption(
            f"the row of {name} in this site's table {table} cannot be read: {error}",
            subject=name,
            next_step="put state.mdb back from a backup of the data directory, or pair the group anew",
        ) from error


# The same rows are read for every heartbeat of every group.
@lru_cache(GROUPS_MAX)
def _group_row(name: str, value: bytes) -> GroupRow:
    with readable("groups", name):
        group_id, role, head, created = _GROUP.decode(value)
        check_name(name, "group")
    return GroupRow(name=name, group_id=group_id, role=role, head=head, created_utc_ns=created)
