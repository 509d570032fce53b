"""Kinds of damage, and one damaged thing as five numbers: it travels between processes and is kept.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from engine.index.levels import blocks_at, level_and_first
from protocol.errors import Corruption
from protocol.positions import Cut

KEY = Struct(">BQQQQ")


class Fault(IntEnum):
    """What is wrong, and what the four numbers of its place are."""

    FRAME = 1  # timeline, position, end, 0: no valid frames in [position, end)
    RECORD = 2  # timeline, position of the record, of its frame, 0: not in the index as the journal has it
    ROW_MISSING = 3  # lane, volume, block (as in a row's key), number: the version is not in the index
    ROW = 4  # the same: its index row cannot be read
    STORED = 5  # the same: its bytes in the index are missing or others
    JOURNAL = 6  # the same: its bytes in the journal are missing or others
    UNREAD = 8  # timeline, position, end, 0: the frame in [position, end) is whole and not understood
    MORE = 7  # 0, 0, 0, 0: there was more than is kept here


VERSION_FAULTS = frozenset({Fault.ROW_MISSING, Fault.ROW, Fault.STORED, Fault.JOURNAL})

_WORDS = {
    Fault.ROW_MISSING: "has no index row",
    Fault.ROW: "has an index row that cannot be read",
    Fault.STORED: "its bytes in the index are not what was written",
    Fault.JOURNAL: "its bytes in the journal are not what the index says",
}


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged thing and its place, as `Fault` says."""

    fault: Fault
    place: tuple[int, int, int, int]

    @property
    def key(self) -> bytes:
        """33 bytes that stand for it."""
        return KEY.pack(self.fault, *self.place)

    @property
    def version(self) -> tuple[int, int, int, int]:
        """Lane, volume, block and number of a damaged version."""
        return self.place

    @property
    def position(self) -> str:
        """Where in the journal, as text."""
        first, second, _, number = self.place
        if self.fault in VERSION_FAULTS:
            return str(number)
        return str(Cut(first, second)) if first else ""

    @property
    def subject(self) -> str:
        """What is damaged, without its group."""
        lane, volume, _, _ = self.place
        if self.fault in VERSION_FAULTS:
            return f"lane {lane} volume {volume:x} {self.blocks}"
        return {Fault.FRAME: "journal", Fault.UNREAD: "journal", Fault.RECORD: "index.mdb"}.get(
            self.fault, ""
        )

    @property
    def is_run(self) -> bool:
        """Whether it is the row of a run of blocks that is damaged."""
        return self.fault in VERSION_FAULTS and level_and_first(self.place[2])[0] > 0

    @property
    def block_range(self) -> range:
        """The blocks of a damaged version: one, or those of a run."""
        return blocks_at(self.place[2])

    @property
    def blocks(self) -> str:
        """The same as text."""
        found = self.block_range
        return f"blocks {found[0]} to {found[-1]}" if self.is_run and found else f"block {self.place[2]}"

    @property
    def message(self) -> str:
        """What is wrong, in words."""
        _, volume, _, number = self.place
        if self.fault in VERSION_FAULTS:
            words = _WORDS[self.fault]
            return f"version of {self.blocks} of volume {volume:x}, written at {number}: {words}"
        if self.fault is Fault.FRAME:
            return f"journal frame at {self.position} is damaged, {self.place[2] - self.place[1]} bytes"
        if self.fault is Fault.UNREAD:
            size = self.place[2] - self.place[1]
            return f"journal frame at {self.position}, {size} bytes, is whole but cannot be understood"
        if self.fault is Fault.RECORD:
            return "a record is not in the index as the journal has it"
        return "there is more damage than is listed"


def damage_from_numbers(numbers: Iterable[int]) -> Iterator[Damage]:
    """The inverse of `damage_to_numbers`."""
    flat = list(numbers)
    for at in range(0, len(flat), 5):
        fault, first, second, third, fourth = flat[at : at + 5]
        yield Damage(Fault(fault), (first, second, third, fourth))


def damage_to_numbers(damage: Iterable[Damage]) -> tuple[int, ...]:
    """Five numbers each, to travel in the figures of an answer."""
    return tuple(number for each in damage for number in (each.fault, *each.place))


class DamagedVersion(Corruption):
    """A version that cannot be read, or whose bytes are others; `damage` says which."""

    def __init__(self, message: str, damage: Damage) -> None:
        super().__init__(
            message,
            subject=damage.subject,
            position=damage.position,
            next_step="`farshore verify GROUP --deep --repair` lists what is affected, and mends it",
        )
        self.damage = damage

    @property
    def number(self) -> int:
        """That of the version, or of the first block of a run."""
        return self.damage.place[3]
