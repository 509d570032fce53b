"""The demo's account of writes: a ledger that missed a lost write would prove nothing."""

from __future__ import annotations

import random

import pytest

from console.demo.host import Ledger
from protocol.limits import BLOCK_BYTES

BLOCKS = 600


class Disk:
    """A host's connection to a disk in memory. `lose` writes numbered so, by order of arrival, are
    acknowledged and dropped; `keep_answers` leaves the last answers unread, as a kill does."""

    def __init__(self, lose: set[int] | None = None) -> None:
        self.content = bytearray(BLOCKS * BLOCK_BYTES)
        self.gone = False
        self._lose = lose or set()
        self._count = 0
        self._answers: list[int] = []

    def submit_write(self, offset: int, data: bytes) -> int:
        self._count += 1
        if self._count not in self._lose:
            self.content[offset : offset + len(data)] = data
        self._answers.append(self._count)
        return self._count

    def take_reply(self) -> tuple[int, int]:
        if self.gone:
            raise ConnectionResetError
        return self._answers.pop(0), 0

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])


def written(disk: Disk, count: int = 2_000) -> Ledger:
    """A ledger that has written every block once and `count` random ones, all acknowledged."""
    ledger = Ledger(BLOCKS, random.Random(1))
    ledger.fill(disk)  # type: ignore[arg-type]
    ledger.send(disk, count)  # type: ignore[arg-type]
    ledger.take_replies(disk, 0)  # type: ignore[arg-type]
    return ledger


def check(ledger: Ledger, disk: Disk) -> list[str]:
    """What the ledger finds wrong."""
    return ledger.check(disk)  # type: ignore[arg-type]


def test_nothing_is_wrong() -> None:
    disk = Disk()
    ledger = written(disk)
    assert ledger.acknowledged == BLOCKS + 2_000
    assert check(ledger, disk) == []
    assert ledger.forget_unanswered() == 0


def test_an_acknowledged_write_is_missed() -> None:
    """The last write of some block lost: the block holds an older number."""
    disk = Disk(lose={BLOCKS + 2_000})
    (wrong,) = check(written(disk), disk)
    assert wrong.endswith(f"not {BLOCKS + 2_000} to {BLOCKS + 2_000}")


def test_a_write_that_a_later_one_covers_is_not_missed() -> None:
    disk = Disk(lose={1})
    assert check(written(disk, 20_000), disk) == []


@pytest.mark.parametrize("at", [0, 16, BLOCK_BYTES // 2, BLOCK_BYTES - 1])
def test_a_mix_is_found(at: int) -> None:
    disk = Disk()
    ledger = written(disk)
    disk.content[7 * BLOCK_BYTES + at] ^= 1
    (wrong,) = check(ledger, disk)
    assert wrong.startswith("block 7 holds")


def test_a_block_in_the_wrong_place_is_found() -> None:
    disk = Disk()
    ledger = written(disk)
    disk.content[:BLOCK_BYTES] = disk.content[BLOCK_BYTES : 2 * BLOCK_BYTES]
    assert [line.split(",")[0] for line in check(ledger, disk)] == ["block 0 holds a mix"]


def test_an_unanswered_write_may_be_there_or_not_but_stays_as_it_was_read() -> None:
    for lost in (set(), set(range(BLOCKS + 1, BLOCKS + 41))):
        disk = Disk(lose=lost)
        ledger = written(disk, 0)
        before = bytes(disk.content)
        ledger.send(disk, 40)  # type: ignore[arg-type]
        disk.gone = True
        with pytest.raises(ConnectionResetError):
            ledger.take_replies(disk, 0)  # type: ignore[arg-type]
        assert ledger.forget_unanswered() == 40
        assert check(ledger, disk) == []
        # What was read once must not go back to what was before.
        disk.content[:] = before
        assert bool(check(ledger, disk)) is not bool(lost)
