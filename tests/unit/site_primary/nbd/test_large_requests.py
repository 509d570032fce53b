"""Requests too large for one turn: what they give and leave is what small ones would, whatever goes wrong."""

from __future__ import annotations

import random

import pytest

from protocol.errors import Corruption, NoSpace
from protocol.limits import (
    BLOCK_BYTES,
    NBD_FIRST_BUFFER_BYTES,
    NBD_REQUEST_BYTES_MAX,
    NBD_TURN_BLOCKS,
    NBD_WHOLE_WRITE_BYTES,
)
from protocol.nbd.constants import Command, CommandFlag, NbdError
from protocol.nbd.requests import REQUEST_BYTES
from site_primary.nbd.stream import HostStream
from tests.unit.engine.group_rig import GroupRig
from tests.unit.site_primary.nbd.nbd_rig import NbdHost, NbdServed

BLOCKS = NBD_REQUEST_BYTES_MAX // BLOCK_BYTES
SIZE = NBD_REQUEST_BYTES_MAX
TURN_BYTES = NBD_TURN_BLOCKS * BLOCK_BYTES
FORMS = [(True, 0), (True, int(CommandFlag.DF)), (False, 0)]


@pytest.fixture
def served(rig: GroupRig) -> NbdServed:
    return NbdServed(rig, BLOCKS)


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, SIZE),
        (1, SIZE - 1),
        (4095, SIZE - 4095),
        (511, NBD_WHOLE_WRITE_BYTES + 1),
        (512, 3 * NBD_WHOLE_WRITE_BYTES + 513),
        (0, NBD_WHOLE_WRITE_BYTES),
        (0, NBD_WHOLE_WRITE_BYTES + BLOCK_BYTES),
    ],
)
@pytest.mark.parametrize("piece", [SIZE, 70_001])
def test_a_large_write_leaves_its_bytes(served: NbdServed, offset: int, length: int, piece: int) -> None:
    host = served.connect()
    content = bytearray(SIZE)
    payload = random.Random(length).randbytes(length)
    answer, data = host.client.request(Command.WRITE, offset, length, payload)
    later, more = host.client.request(Command.WRITE, 0, 3, b"end")
    data += more
    for at in range(0, len(data), piece):
        assert not answer.done
        host.send(data[at : at + piece])
        host.settle()
    content[offset : offset + length] = payload
    content[:3] = b"end"
    assert answer.done
    assert later.done
    assert not answer.error
    assert served.read() == content
    assert served.budget.lent_bytes == 0


def test_of_large_writes_on_end_nothing_is_moved(served: NbdServed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bytes are where the socket put them until they are copied into the frame."""
    host = served.connect()
    moved: list[int] = []
    make_room = HostStream._make_room

    def counted(self: HostStream) -> None:
        moved.append(self._end - self._start)
        make_room(self)

    monkeypatch.setattr(HostStream, "_make_room", counted)
    content = random.Random(2).randbytes(8 * NBD_WHOLE_WRITE_BYTES)
    data, answers = b"", []
    for at in range(0, len(content), NBD_WHOLE_WRITE_BYTES):
        payload = content[at : at + NBD_WHOLE_WRITE_BYTES]
        answer, more = host.client.request(Command.WRITE, at, len(payload), payload)
        answers.append(answer)
        data += more
    host.send(data)
    host.settle()
    assert all(answer.done and not answer.error for answer in answers)
    assert served.read()[: len(content)] == content
    # The first one is known to be large once a small buffer of it came.
    assert sum(moved) <= NBD_FIRST_BUFFER_BYTES + len(answers) * REQUEST_BYTES
    assert served.budget.lent_bytes == 0


@pytest.mark.parametrize(("structured", "flags"), FORMS)
@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE), (3, SIZE - 7), (4096, TURN_BYTES), (4095, TURN_BYTES + 1)]
)
def test_a_large_read_gives_what_is_there(
    served: NbdServed, offset: int, length: int, structured: bool, flags: int
) -> None:
    host = served.connect(structured=structured)
    content = random.Random(1).randbytes(SIZE)
    host.write(0, content)
    host.settle()
    host.wire.takes = 100_000
    answer = host.request(Command.READ, offset, length, flags=flags)
    later = host.request(Command.READ, 0, 5)
    for _ in range(2 * length // 1_000_000 + 2):
        host.settle()
        host.wire.take(1_000_000)
    host.settle()
    assert answer.done
    assert answer.data == content[offset : offset + length]
    assert later.data == content[:5]


def failing_after(served: NbdServed, offset: int) -> None:
    """Reads at or past an offset fail."""
    view = served.export.view
    read = view.read

    def damaged(batch: object, at: int, length: int) -> bytes:
        if at + length > offset:
            raise Corruption("the bytes are not those indexed", subject="g")
        return read(batch, at, length)  # type: ignore[arg-type]

    view.read = damaged  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize(("structured", "flags"), FORMS)
@pytest.mark.parametrize("good", [0, 2 * TURN_BYTES])
def test_a_large_read_that_fails_half_way_is_never_taken_for_whole(
    served: NbdServed, structured: bool, flags: int, good: int
) -> None:
    """In words where the protocol has them; else by a closed connection."""
    host = served.connect(structured=structured)
    failing_after(served, good)
    answer = host.request(Command.READ, 0, SIZE, flags=flags)
    host.settle()
    if good and not structured:
        assert not answer.done
        assert host.wire.closed
        return
    assert answer.done
    assert answer.error == NbdError.EIO
    assert "not those indexed" in answer.message or not structured
    after = host.write(0, b"x" * 512)
    host.settle()
    assert after.done
    assert not after.error


def fill_after(served: NbdServed, frames: int) -> None:
    """The disk is full after so many frames, for one."""
    append = served.rig.group.append
    left = iter(range(frames))

    def full(*arguments: object) -> object:
        if next(left, None) is None:
            served.rig.group.append = append  # type: ignore[method-assign]
            raise NoSpace("no room")
        return append(*arguments)  # type: ignore[arg-type]

    served.rig.group.append = full  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("frames", [0, 1, 5])
@pytest.mark.parametrize("piece", [SIZE, 100_001])
def test_a_large_write_that_fails_is_answered_once_and_what_follows_is_read_right(
    served: NbdServed, frames: int, piece: int
) -> None:
    host = served.connect()
    fill_after(served, frames)
    answer, data = host.client.request(Command.WRITE, 100, SIZE - 100, b"f" * (SIZE - 100))
    later, more = host.client.request(Command.WRITE, 0, 512, b"l" * 512)
    data += more
    for at in range(0, len(data), piece):
        host.send(data[at : at + piece])
    host.settle()
    assert answer.done
    assert answer.error == NbdError.ENOSPC
    assert later.done
    assert not later.error
    assert served.read()[:512] == b"l" * 512
    assert not host.wire.closed


def test_large_and_small_requests_in_any_order(served: NbdServed) -> None:
    rng = random.Random(7)
    host = served.connect()
    content = bytearray(SIZE)
    for _ in range(120):
        offset = rng.choice([0, 1, 511, 4096, 1 << 20, SIZE - 4097])
        length = min(rng.choice([0, 1, 511, 4096, 1 << 20, (2 << 20) + 5, 9 << 20]), SIZE - offset)
        if rng.random() < 0.5:
            payload = rng.randbytes(length)
            host.write(offset, payload)
            content[offset : offset + length] = payload
        else:
            _read_and_compare(host, offset, length, content)
    host.settle()
    assert served.read() == content


def _read_and_compare(host: NbdHost, offset: int, length: int, content: bytearray) -> None:
    host.settle()
    host.wire.takes = 50_000
    answer = host.request(Command.READ, offset, length)
    host.settle()
    host.wire.take(1 << 60)
    host.settle()
    assert answer.done
    assert answer.data == content[offset : offset + length]
