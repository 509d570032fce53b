"""What the reader of file systems and its caller say to each other, over a pair of pipes.

The reader parses what a stranger may have written, so its caller trusts nothing of what it says: every
message is one array behind its length in four bytes (little-endian), typed and bounded, and whatever is
neither ends the conversation. Names and link targets are bytes as they are stored, times UTC nanoseconds.

A caller asks one thing at a time. `Open` is answered with `Opened`; `List` with one `Entry` for each name and
`Done`; `Look` with one `Entry` or `Trouble`, and `Done`; `Read` with the `Extents` that hold data (what lies
between them is a hole), then `Data` in order, and `Done`. `Trouble` may stand before any `Done`: something of
it did not come.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.errors import RemoteProtocolError
from protocol.limits import (
    FILE_EXTENTS_IN_MESSAGE_MAX,
    FILE_LACKS_MAX,
    FILE_MESSAGE_BYTES_MAX,
    FILE_NAME_BYTES_MAX,
    FILE_PARTITIONS_MAX,
    FILE_TEXT_CHARS_MAX,
    FILE_XATTR_BYTES_MAX,
    FILE_XATTRS_MAX,
)

LENGTH_BYTES = 4
KINDS = frozenset("fdlbcps?")

_SIZE_MAX = (1 << 63) - 1
_U32_MAX = (1 << 32) - 1
Count = Annotated[int, Meta(ge=0, le=_SIZE_MAX)]
Small = Annotated[int, Meta(ge=0, le=_U32_MAX)]
PARTITION_MAX = _U32_MAX
# ext4 counts to the year 2446; msgpack ends at 2^64 - 1, in 2554.
TIME_NS_MIN, TIME_NS_MAX = -_SIZE_MAX, (1 << 64) - 1
Time = Annotated[int, Meta(ge=TIME_NS_MIN)]
# What the kernel's device numbers have room for: 12 and 20 bits. Source: linux/kdev_t.h.
Major = Annotated[int, Meta(ge=0, le=(1 << 12) - 1)]
Minor = Annotated[int, Meta(ge=0, le=(1 << 20) - 1)]
Text = Annotated[str, Meta(max_length=FILE_TEXT_CHARS_MAX)]
FileName = Annotated[bytes, Meta(max_length=FILE_NAME_BYTES_MAX)]
Target = Annotated[bytes, Meta(max_length=4096)]
AttributeName = Annotated[bytes, Meta(min_length=1, max_length=255)]
AttributeValue = Annotated[bytes, Meta(max_length=FILE_XATTR_BYTES_MAX)]
Attributes = Annotated[tuple[tuple[AttributeName, AttributeValue], ...], Meta(max_length=FILE_XATTRS_MAX)]
Lacks = Annotated[tuple[Text, ...], Meta(max_length=FILE_LACKS_MAX)]


# FS_IOC_GETFLAGS and ext4's inodes have the same bits. Source: linux/fs.h, e2fsprogs' lib/e2p/pf.c.
_FLAGS = {
    0x1: "s", 0x2: "u", 0x8: "S", 0x10: "i", 0x20: "a", 0x40: "d", 0x80: "A", 0x4000: "j", 0x8000: "t",
    0x10000: "D", 0x20000: "T", 0x100000: "V", 0x800000: "C", 0x2000000: "x", 0x20000000: "P",
    0x40000000: "F",
}  # fmt: skip


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of every message; `kind` is its tag."""


class Open(Message, frozen=True, tag=1):
    """Find the file system. `partition` as Linux numbers them; 0: the whole volume, or the only one."""

    partition: Small


class List(Message, frozen=True, tag=2):
    """A directory's names. `number` is an entry's."""

    number: Count


class Read(Message, frozen=True, tag=3):
    """A file's content."""

    number: Count


class Look(Message, frozen=True, tag=4):
    """What a directory is itself: the root, which no other one names. Its entry's name is empty."""

    number: Count


class Partition(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A row of the partition table; `holds` is a word for what is in it, or empty."""

    number: Small
    first_byte: Count
    size_bytes: Count
    text: Text
    holds: Text


class Opened(Message, frozen=True, tag=16):
    """`partition` 0 is the whole volume. `file_system` is empty if none can be read here; then `holds` says
    what was found. `root` is the root directory's number. `unfinished`: its log was not played back.
    `case_folds`: names differ by more than case. `has_owners`: files have an owner and a mode, as Unix knows
    them. `unfenced`: what the kernel did not have to keep the reader in, or empty."""

    partitions: Annotated[tuple[Partition, ...], Meta(max_length=FILE_PARTITIONS_MAX)]
    partition: Small
    first_byte: Count
    size_bytes: Count
    file_system: Text
    holds: Text
    root: Count
    unfinished: bool
    case_folds: bool
    has_owners: bool
    unfenced: Text


class Entry(Message, frozen=True, tag=17):
    """A name in a directory, and what it names: `what` is f(ile), d(irectory), l(ink), b(lock device),
    c(haracter device), p(ipe), s(ocket) or ?. `mode` are the twelve permission bits. `lacks` says what of it
    does not come, or, of kind ?, why nothing does."""

    name: FileName
    number: Count
    what: Annotated[str, Meta(min_length=1, max_length=1)]
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    uid: Small
    gid: Small
    size_bytes: Count
    mtime_ns: Time
    atime_ns: Time
    links: Small
    target: Target
    major: Major
    minor: Minor
    attributes: Attributes
    lacks: Lacks


class Extents(Message, frozen=True, tag=18):
    """Where a file of `size_bytes` has data: offsets and lengths, ascending, not touching each other."""

    size_bytes: Count
    extents: Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=FILE_EXTENTS_IN_MESSAGE_MAX)]
    more: bool


class Data(Message, frozen=True, tag=19):
    """Some of a file's bytes; inside one extent."""

    offset: Count
    data: bytes


class Trouble(Message, frozen=True, tag=20):
    """Something did not come: the name, or empty for what was asked for itself, and why."""

    name: FileName
    text: Text


class Done(Message, frozen=True, tag=21):
    """The end of an answer."""


Request = Open | List | Read | Look
Answer = Opened | Entry | Extents | Data | Trouble | Done

_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer)


def encode(message: Message) -> bytes:
    """One message as it travels."""
    body = _encoder.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


class _Incoming:
    """Bytes in any pieces to messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._buffer += data

    def bodies(self) -> Iterator[bytes]:
        """Every whole message that is there. Raises RemoteProtocolError for one that is too long."""
        start = 0
        while len(self._buffer) - start >= LENGTH_BYTES:
            length = int.from_bytes(self._buffer[start : start + LENGTH_BYTES], "little")
            if length > FILE_MESSAGE_BYTES_MAX:
                raise RemoteProtocolError(f"a message of {length} bytes")
            end = start + LENGTH_BYTES + length
            if len(self._buffer) < end:
                break
            yield bytes(self._buffer[start + LENGTH_BYTES : end])
            start = end
        del self._buffer[:start]


class IncomingRequests(_Incoming):
    """The reader's side."""

    def take(self, data: bytes) -> list[Request]:
        """The requests that `data` completes. Raises RemoteProtocolError."""
        self.feed(data)
        try:
            return [_requests.decode(body) for body in self.bodies()]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise RemoteProtocolError(f"not a request: {error}") from error


class IncomingAnswers(_Incoming):
    """The caller's side."""

    def take(self, data: bytes) -> list[Answer]:
        """The answers that `data` completes. Raises RemoteProtocolError."""
        self.feed(data)
        try:
            answers = [_answers.decode(body) for body in self.bodies()]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise RemoteProtocolError(f"not an answer: {error}") from error
        for answer in answers:
            if isinstance(answer, Entry):
                _check_entry(answer)
        return answers


def _check_entry(entry: Entry) -> None:
    """What its types do not say. Names are looked at where they are used; the rest goes to system calls as it
    is, for which a NUL ends a text."""
    if entry.what not in KINDS:
        raise RemoteProtocolError(f"an entry of kind {entry.what!r}")
    if b"\0" in entry.target or any(b"\0" in name for name, _ in entry.attributes):
        raise RemoteProtocolError("a link or an attribute's name with a NUL in it")


def shown(data: bytes) -> str:
    """Stored bytes as one line of text: what is not printable as `\\xNN`, a backslash doubled, so that a name
    can neither move a terminal's cursor nor look like another."""
    return "".join(map(_shown, data.decode("utf-8", "surrogateescape")))


def flags_text(flags: int) -> str:
    """Which flags of a file are set, of those that chattr(1) sets and nothing else keeps; empty for none."""
    letters = "".join(letter for bit, letter in _FLAGS.items() if flags & bit)
    return f"its flags ({letters}, as chattr writes them)" if letters else ""


def _shown(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    # What is not UTF-8: surrogateescape adds 0xDC00 to the byte.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(character)[1:-1]
