"""What the reader of file systems says is taken for what it is, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.file_stream import (
    Data,
    Done,
    Entry,
    Extents,
    IncomingAnswers,
    IncomingRequests,
    List,
    Message,
    Open,
    Opened,
    Partition,
    Read,
    Trouble,
    encode,
    shown,
)
from protocol.limits import FILE_MESSAGE_BYTES_MAX

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
    requests: list[Message] = [Open(partition=0), List(number=2), Read(number=3)]
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


@given(st.binary())
def test_noise(noise: bytes) -> None:
    try:
        IncomingAnswers().take(noise)
    except RemoteProtocolError:
        pass


@given(st.binary())
def test_shown_is_printable_and_tells_names_apart(name: bytes) -> None:
    text = shown(name)
    assert text.isprintable()
    assert shown(name + b"!") != text


def test_shown() -> None:
    assert shown(b"a\\n\n\x1b[2J\xff\xc3\xa4") == r"a\\n\n\x1b[2J\xff" + "ä"
