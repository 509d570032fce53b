"""Values of site.toml that are written as text: sizes and spans beside plain numbers; modes of sockets."""

from __future__ import annotations

import re
from typing import Any

from engine.ports.unix_sockets import SocketAccess
from protocol.errors import UsageError
from protocol.quantities import parse_bytes, parse_span

_MODE = re.compile(r"0?([0-7]{3})", re.ASCII)
_READ_AND_WRITE = 0o666
_OTHERS = 0o007


def with_numbers(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The same tables, with `"50G"` of a key that ends in `_bytes`, and `"2d"` of one in `_s`, as numbers.
    UsageError names the key."""
    return {key: _number(value, key, prefix) for key, value in fields.items()}


def _number(value: Any, key: str, prefix: str) -> Any:
    if isinstance(value, dict):
        return with_numbers(value, f"{prefix}{key}.")
    if not isinstance(value, str):
        return value
    try:
        if key.endswith("_bytes"):
            size_bytes, rest = parse_bytes(value, "size")
            if rest:
                raise UsageError(
                    f"{value!r} is no whole number of bytes", next_step="write it as 512M or 10G"
                )
            return size_bytes
        return parse_span(value) if key.endswith("_s") else value
    except UsageError as error:
        name = prefix + key
        raise UsageError(f"{name}: {error.message}", subject=name, next_step=error.next_step) from error


def socket_access(key: str, mode: str, owner: str, group: str, *, others: bool) -> SocketAccess:
    """Who may connect to the unix sockets of `key` (`nbd` or `control`). UsageError for a mode that is none,
    that shuts out the daemon's own user, or lets in every user of the machine without `others`."""
    name = f"{key}_socket_mode"
    match = _MODE.fullmatch(mode)
    bits = int(match[1], 8) if match else 0
    if bits & ~_READ_AND_WRITE or bits & 0o600 != 0o600:
        raise UsageError(
            f'{name} is {mode!r}: it must be the mode of a socket, such as "0600" or "0660"', subject=name
        )
    if bits & _OTHERS and not others:
        raise UsageError(
            f"{name} is {mode!r}: every user of this machine could connect",
            subject=name,
            next_step=f'{name} = "0660", and the group of those who may in {key}_socket_group',
        )
    for each, what in ((owner, "owner"), (group, "group")):
        if not each.isprintable() or ":" in each:
            raise UsageError(f"{key}_socket_{what} is {each!r}, which names nobody", subject=name)
    return SocketAccess(mode=bits, owner=owner, group=group)
