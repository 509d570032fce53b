"""Bodies of handshake options and their replies, byte for byte. Pure functions; order is handshake.py's.

    option:  u64 IHAVEOPT   u32 option   u32 length   body                ("Newstyle negotiation")
    reply:   u64 magic      u32 option   u32 type     u32 length   body   ("Fixed newstyle negotiation")

A body that breaks its rules raises `OptionRefused`, which becomes an error reply: the client may go on.
"""

from __future__ import annotations

import struct

from protocol.errors import FarshoreError, NotFound, Unreachable, UsageError
from protocol.limits import NBD_EXPORT_NAME_BYTES_MAX
from protocol.nbd.constants import (
    OPTION_REPLY_MAGIC,
    STRING_BYTES_MAX,
    InfoType,
    OptionReply,
)
from protocol.nbd.exports import ExportInfo

OPTION_HEADER = struct.Struct(">QII")
OPTION_REPLY_HEADER = struct.Struct(">QIII")
EXPORT_NAME_REPLY = struct.Struct(">QH")

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_INFO_EXPORT = struct.Struct(">HQH")
_INFO_BLOCK_SIZE = struct.Struct(">HIII")

# Contexts that one client may select; each costs a walk per BLOCK_STATUS.
META_CONTEXTS_MAX = 16


class OptionRefused(Exception):
    """This option gets an error reply; the handshake goes on."""

    def __init__(self, reply: OptionReply, text: str) -> None:
        super().__init__(text)
        self.reply = reply
        self.text = text


def refusal_of(error: FarshoreError) -> OptionRefused:
    """The error reply that tells a client's user what the server's operator would be told."""
    if isinstance(error, NotFound):
        reply = OptionReply.ERR_UNKNOWN
    elif isinstance(error, UsageError):
        reply = OptionReply.ERR_INVALID
    elif isinstance(error, Unreachable):
        reply = OptionReply.ERR_SHUTDOWN
    else:
        reply = OptionReply.ERR_POLICY
    text = f"{error.message}; {error.next_step}" if error.next_step else error.message
    return OptionRefused(reply, text)


def wire_text(text: str) -> bytes:
    """UTF-8 for a client's terminal: at most 4,096 bytes, cut at a character; controls become spaces."""
    printable = "".join(char if char.isprintable() else " " for char in text[:STRING_BYTES_MAX])
    data = printable.encode("utf-8", "replace")
    if len(data) > STRING_BYTES_MAX:
        data = data[:STRING_BYTES_MAX].decode("utf-8", "ignore").encode()
    return data


class _Body:
    """A reader over one option's body; running past the end refuses the option as invalid."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        # Compared before the sum is used: `count` is the client's and may be 4 GiB.
        if count > len(self._data) - self._at:
            raise OptionRefused(OptionReply.ERR_INVALID, "the option is shorter than the lengths in it")
        start = self._at
        self._at = start + count
        return self._data[start : self._at]

    def u16(self) -> int:
        value: int = _U16.unpack(self.take(2))[0]
        return value

    def u32(self) -> int:
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def string(self) -> str:
        return decode_string(self.take(self.u32()))

    def end(self) -> None:
        if self._at != len(self._data):
            raise OptionRefused(OptionReply.ERR_INVALID, "the option is longer than the lengths in it")


def decode_string(data: bytes) -> str:
    """A string of "Conventions": UTF-8, no NUL, at most 4,096 bytes.

    Raises `OptionRefused`.
    """
    if len(data) > NBD_EXPORT_NAME_BYTES_MAX:
        raise OptionRefused(
            OptionReply.ERR_TOO_BIG, f"a name is longer than {NBD_EXPORT_NAME_BYTES_MAX} bytes"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise OptionRefused(OptionReply.ERR_INVALID, "a name is not UTF-8") from None
    if "\0" in text:
        raise OptionRefused(OptionReply.ERR_INVALID, "a name contains a NUL")
    return text


def parse_info_body(data: bytes) -> tuple[str, frozenset[int]]:
    """Body of NBD_OPT_INFO and NBD_OPT_GO: export name and the information types asked for.

    Raises `OptionRefused` for lengths that do not add up.
    """
    body = _Body(data)
    name = body.string()
    count = body.u16()
    wanted = struct.unpack(f">{count}H", body.take(2 * count))
    body.end()
    return name, frozenset(wanted)


def parse_meta_body(data: bytes) -> tuple[str, list[str]]:
    """Body of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: export name and queries.

    Raises `OptionRefused` for lengths that do not add up. Work is bounded by the body: a query takes at least
    4 bytes of it, and the count alone allocates nothing.
    """
    body = _Body(data)
    name = body.string()
    count = body.u32()
    queries: list[str] = []
    for _ in range(count):
        queries.append(body.string())
    body.end()
    return name, queries


def match_contexts(export: ExportInfo, queries: list[str], *, listing: bool) -> list[str]:
    """Names of the contexts that the queries select, each once, in the order asked ("Metadata querying").

    Listing, `namespace:` stands for all of that namespace and no query at all for everything on offer;
    selecting, both select nothing. Unknown names are ignored, as the protocol wants. Raises `OptionRefused`
    when more than `META_CONTEXTS_MAX` match; passes on the `FarshoreError` of `export.check_context`.
    """
    if listing and not queries:
        return list(export.meta_contexts)
    chosen: dict[str, None] = {}
    for query in queries:
        if query.endswith(":"):
            found = [name for name in export.meta_contexts if listing and name.startswith(query)]
        else:
            found = [query] if query not in chosen and _offers(export, query) else []
        chosen.update(dict.fromkeys(found))
        if len(chosen) > META_CONTEXTS_MAX:
            raise OptionRefused(OptionReply.ERR_TOO_BIG, f"more than {META_CONTEXTS_MAX} metadata contexts")
    return list(chosen)


def _offers(export: ExportInfo, query: str) -> bool:
    for name in export.meta_contexts:
        if not name.endswith("/"):
            if query == name:
                return True
        elif query.startswith(name) and query != name:
            if export.check_context is not None:
                export.check_context(query)
            return True
    return False


def encode_reply(option: int, reply: OptionReply, body: bytes = b"") -> bytes:
    """One reply to `option`."""
    return OPTION_REPLY_HEADER.pack(OPTION_REPLY_MAGIC, option, reply, len(body)) + body


def encode_server(option: int, name: str) -> bytes:
    """NBD_REP_SERVER: one line of NBD_OPT_LIST."""
    data = name.encode()
    return encode_reply(option, OptionReply.SERVER, _U32.pack(len(data)) + data)


def encode_meta_context(option: int, context_id: int, name: str) -> bytes:
    """NBD_REP_META_CONTEXT."""
    return encode_reply(option, OptionReply.META_CONTEXT, _U32.pack(context_id) + name.encode())


def encode_infos(option: int, export: ExportInfo, flags: int, wanted: frozenset[int]) -> bytes:
    """The NBD_REP_INFO replies for an export: always its size and flags, the rest if asked for."""
    bodies = [_INFO_EXPORT.pack(InfoType.EXPORT, export.size_bytes, flags)]
    if InfoType.NAME in wanted:
        bodies.append(_U16.pack(InfoType.NAME) + export.name.encode())
    if InfoType.DESCRIPTION in wanted and export.description:
        bodies.append(_U16.pack(InfoType.DESCRIPTION) + wire_text(export.description))
    if InfoType.BLOCK_SIZE in wanted:
        sizes = (export.block_bytes_min, export.block_bytes_preferred, export.block_bytes_max)
        bodies.append(_INFO_BLOCK_SIZE.pack(InfoType.BLOCK_SIZE, *sizes))
    return b"".join(encode_reply(option, OptionReply.INFO, body) for body in bodies)
