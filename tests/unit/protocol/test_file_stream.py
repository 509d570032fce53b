"""What the reader of file systems says is taken for what it is, or refused."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.file_stream import (
    LENGTH_BYTES,
    Data,
    Done,
    Entry,
    Extents,
    IncomingAnswers,
    IncomingRequests,
    List,
    Look,
    Message,
    Open,
    Opened,
    Partition,
    Read,
    Trouble,
    encode,
    shown,
)
from protocol.limits import FILE_MESSAGE_BYTES_MAX, FILE_NAME_BYTES_MAX
from protocol.printable import printable

ENTRY = Entry(
    name=b"a\xff", number=12, what="f", mode=0o4755, uid=1, gid=2, size_bytes=3, mtime_ns=-4, atime_ns=5,
    links=2, target=b"", major=0, minor=0, attributes=((b"user.x", b"\0"),), lacks=("a stream",),
)  # fmt: skip
ANSWERS: list[Message] = [
    Opened(
        partitions=(Partition(number=1, first_byte=512, size_bytes=1, text="t", holds="ext4"),), partition=1,
        first_byte=512, size_bytes=1, file_system="ext4", holds="ext4", root=2, unfinished=True,
        case_folds=False, has_owners=True, unfenced="",
    ),
    ENTRY, Extents(size_bytes=9, extents=((0, 4), (8, 1)), more=False), Data(offset=8, data=b"x"),
    Trouble(name=b"b", text="why"), Done(),
]  # fmt: skip


@given(st.lists(st.integers(min_value=1, max_value=50)))
def test_answers_in_any_pieces(sizes: list[int]) -> None:
    stream = b"".join(encode(answer) for answer in ANSWERS)
    incoming, found, at = IncomingAnswers(), [], 0
    for size in [*sizes, len(stream)]:
        found += incoming.take(stream[at : at + size])
        at += size
    assert found == ANSWERS


def test_requests() -> None:
    requests: list[Message] = [Open(partition=0), List(number=2), Read(number=3), Look(number=2)]
    assert IncomingRequests().take(b"".join(map(encode, requests))) == requests


@pytest.mark.parametrize(
    "raw",
    [
        (FILE_MESSAGE_BYTES_MAX + 1).to_bytes(4, "little"),
        b"\1\0\0\0\xc1",
        encode(Open(partition=1)),
        encode(Trouble(name=b"", text="x" * 301)),
        encode(Trouble(name=b"n" * 1025, text="")),
        encode(Extents(size_bytes=-1, extents=(), more=False)),
        encode(Extents(size_bytes=1, extents=((0, -1),), more=False)),
    ],
)
def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        IncomingAnswers().take(raw)


def test_an_entry_of_no_kind() -> None:
    raw = encode(ENTRY).replace(b"\xa1f", b"\xa1z")
    with pytest.raises(RemoteProtocolError):
        IncomingAnswers().take(raw)


@pytest.mark.parametrize(
    "changes",
    [
        {"what": "l", "target": b"a\0b"},
        {"attributes": ((b"user.a\0b", b""),)},
        {"major": 1 << 12},
        {"minor": 1 << 20},
    ],
)
def test_an_entry_that_no_system_call_takes(changes: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        IncomingAnswers().take(encode(msgspec.structs.replace(ENTRY, **changes)))


@given(st.binary())
def test_noise(noise: bytes) -> None:
    try:
        IncomingAnswers().take(noise)
    except RemoteProtocolError:
        pass


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Honest answers, some of them changed, cut, repeated, or with a length that is another one's."""
    out = b""
    for raw in map(encode, draw(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=6))):
        at = draw(st.integers(min_value=0, max_value=len(raw) - 1))
        match draw(st.integers(min_value=0, max_value=4)):
            case 0:
                raw = raw[:at] + draw(st.binary(max_size=9)) + raw[at + draw(st.integers(0, 9)) :]
            case 1:
                body = raw[LENGTH_BYTES:at] + draw(st.binary(max_size=9)) + raw[max(at, LENGTH_BYTES) :]
                raw = len(body).to_bytes(LENGTH_BYTES, "little") + body
            case 2:
                raw = draw(st.integers(0, 2**32 - 1)).to_bytes(LENGTH_BYTES, "little") + raw[LENGTH_BYTES:]
            case 3:
                raw = raw[:at]
            case _:
                pass
        out += raw
    return out


@settings(max_examples=1000, deadline=None)
@given(mutated(), st.integers(min_value=1, max_value=200))
def test_a_hostile_stream(stream: bytes, piece: int) -> None:
    """A typed error, or answers within their bounds; what waits for its rest is never more than a message."""
    incoming = IncomingAnswers()
    for at in range(0, len(stream), piece):
        try:
            found = incoming.take(stream[at : at + piece])
        except RemoteProtocolError:
            return
        for answer in found:
            assert msgspec.convert(msgspec.to_builtins(answer), type(answer)) == answer
            if isinstance(answer, Entry):
                assert answer.what in "fdlbcps?"
                assert len(answer.name) <= FILE_NAME_BYTES_MAX
            if isinstance(answer, Extents):
                assert all(start >= 0 and length >= 0 for start, length in answer.extents)


@pytest.mark.parametrize("head", [b"\x91", b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_a_hostile_message_costs_little_memory(head: bytes) -> None:
    """Nested arrays, and lengths that are only claimed: refused before they cost more than the message."""
    body = (head * FILE_MESSAGE_BYTES_MAX)[:FILE_MESSAGE_BYTES_MAX]
    raw = len(body).to_bytes(LENGTH_BYTES, "little") + body
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            IncomingAnswers().take(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * FILE_MESSAGE_BYTES_MAX


def test_a_time_of_2446_is_one() -> None:
    """ext4's last, which does not fit 63 bits of nanoseconds (C21)."""
    late = msgspec.structs.replace(ENTRY, mtime_ns=15_032_385_535 * 10**9)
    assert IncomingAnswers().take(encode(late)) == [late]


@given(st.text())
def test_words_are_printable(text: str) -> None:
    assert printable(text).isprintable()


@given(st.binary())
def test_shown_is_printable_and_tells_names_apart(name: bytes) -> None:
    text = shown(name)
    assert text.isprintable()
    assert shown(name + b"!") != text


def test_shown() -> None:
    assert shown(b"a\\n\n\x1b[2J\xff\xc3\xa4") == r"a\\n\n\x1b[2J\xff" + "ä"
