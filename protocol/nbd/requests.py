"""Requests of the transmission phase: the one check of what a host asks for, and a plain writer.

    u32 magic 0x25609513   u16 flags   u16 command   u64 cookie   u64 offset   u32 length   [WRITE: data]

Rule: `request_check` is the edge. A request that it passes lies inside the volume and inside the limits, and
was negotiated; nothing behind checks again. Offsets and lengths need no alignment: the write path merges
partial blocks.

The server's loop unpacks `REQUEST` in place.

Source: proto.md, "Request message", "Command flags", "Request types", "Error values", "Size constraints".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from protocol.limits import NBD_REQUEST_BYTES_MAX
from protocol.nbd.constants import REQUEST_MAGIC, Command, CommandFlag, NbdError

# magic, flags, command, cookie, offset, length: 28 bytes.
REQUEST = struct.Struct(">IHHQQI")
REQUEST_BYTES = REQUEST.size

# Plain ints: comparing with an enum's member costs an attribute look-up a request.
_READ = int(Command.READ)
_WRITE = int(Command.WRITE)
_DISC = int(Command.DISC)
_FLUSH = int(Command.FLUSH)
_BLOCK_STATUS = int(Command.BLOCK_STATUS)
_EPERM = int(NbdError.EPERM)
_EINVAL = int(NbdError.EINVAL)
_ENOSPC = int(NbdError.ENOSPC)
_EOVERFLOW = int(NbdError.EOVERFLOW)

# "The server MUST accept all commands with this bit set (even by ignoring the bit)".
_FUA = CommandFlag.FUA
_FLAGS_ALLOWED: dict[Command, CommandFlag] = {
    Command.READ: _FUA | CommandFlag.DF,
    Command.WRITE: _FUA,
    Command.DISC: _FUA,
    Command.FLUSH: _FUA,
    Command.TRIM: _FUA,
    Command.CACHE: _FUA,
    Command.WRITE_ZEROES: _FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO,
    Command.BLOCK_STATUS: _FUA | CommandFlag.REQ_ONE,
}
_COMMANDS = len(Command)
_FLAGS_FORBIDDEN: tuple[int, ...] = tuple(0xFFFF & ~int(_FLAGS_ALLOWED[command]) for command in Command)
_WRITES = frozenset({int(Command.WRITE), int(Command.TRIM), int(Command.WRITE_ZEROES)})
_WITHOUT_RANGE = frozenset({int(Command.DISC), int(Command.FLUSH)})
_FULL_BEYOND_END = frozenset({int(Command.WRITE), int(Command.WRITE_ZEROES)})


# Flags, command, offset and length of a request; 0 or an NBD error.
RequestCheck = Callable[[int, int, int, int], int]


def request_check(
    *, size_bytes: int, read_only: bool, structured_replies: bool, contexts: bool
) -> RequestCheck:
    """The check of one connection to a volume of `size_bytes`: 0 if a request may be carried out, else the
    NBD error to answer with. `contexts`: metadata contexts were negotiated.

    In this order: unknown command or flag, BLOCK_STATUS without contexts and DF without structured replies
    EINVAL; a write on a read-only export EPERM; READ over 32 MiB EOVERFLOW, WRITE EINVAL; beyond the end
    ENOSPC for WRITE and WRITE_ZEROES, EINVAL for others. DISC is never refused: it has no reply.

    Length 0 succeeds, and nothing happens: the protocol leaves it open but for the disconnect, and qemu-nbd
    does the same. BLOCK_STATUS of length 0 is EINVAL: it could not be answered with an extent.

    A refused WRITE's data still follows on the wire: the caller skips it, or disconnects where it is longer
    than `NBD_REQUEST_BYTES_MAX`.
    """
    # The last command; without contexts it is as one that does not exist.
    commands = _COMMANDS if contexts else _BLOCK_STATUS
    forbidden = list(_FLAGS_FORBIDDEN)
    if not structured_replies:
        forbidden[_READ] |= int(CommandFlag.DF)

    def check(flags: int, command: int, offset: int, length: int) -> int:
        if command >= commands or flags & forbidden[command]:
            return 0 if command == _DISC else _EINVAL
        if read_only and command in _WRITES:
            return _EPERM
        if command <= _WRITE:
            if length > NBD_REQUEST_BYTES_MAX:
                return _EOVERFLOW if command == _READ else _EINVAL
        elif command in _WITHOUT_RANGE:
            return _EINVAL if command == _FLUSH and (offset or length) else 0
        elif command == _BLOCK_STATUS and not length:
            return _EINVAL
        if offset + length > size_bytes:
            return _ENOSPC if command in _FULL_BEYOND_END else _EINVAL
        return 0

    return check


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; `payload` is a WRITE's data, empty for all others."""

    flags: int
    command: int
    cookie: int
    offset: int
    length: int
    payload: bytes = b""


def encode_request(request: Request) -> bytes:
    """The bytes of a request, a WRITE's data included."""
    header = REQUEST.pack(
        REQUEST_MAGIC, request.flags, request.command, request.cookie, request.offset, request.length
    )
    return header + request.payload
