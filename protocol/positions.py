"""Positions, cuts and the text forms in which they cross a boundary.

A position is a byte offset in a timeline; a child timeline continues its parent's offsets. A cut is a
timeline and a frame boundary in it: everything before the boundary is in, nothing after.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.errors import UsageError

POSITION_MAX = (1 << 62) - 1
NO_TIMELINE = 0

_CUT = re.compile(r"([0-9a-f]{16}):([0-9]{1,19})")


def timeline_text(timeline: int) -> str:
    """16 hex digits: the form of a timeline in file names, JSON and cuts."""
    return f"{timeline:016x}"


class Cut(msgspec.Struct, frozen=True, order=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A timeline id (64-bit; 0: none) and a frame boundary (bytes) in it."""

    timeline: Annotated[int, Meta(ge=0)]
    position: Annotated[int, Meta(ge=0, le=POSITION_MAX)]

    def __hash__(self) -> int:
        """By the numbers alone: a Struct's own hash takes the place of its type in memory, so that sets of
        cuts would be in another order in every process, and no seed would decide a simulation."""
        return hash((self.timeline, self.position))

    def __str__(self) -> str:
        return f"{self.timeline:016x}:{self.position}"


def parse_cut(text: str) -> Cut:
    """Read `TIMELINE:POSITION`; UsageError for anything else."""
    match = _CUT.fullmatch(text)
    if match is None or int(match[2]) > POSITION_MAX:
        raise UsageError(
            f"{text!r} is not TIMELINE:POSITION",
            subject=text,
            next_step="16 hex digits, a colon, a decimal: `farshore journal show G` prints them",
        )
    return Cut(int(match[1], 16), int(match[2]))
