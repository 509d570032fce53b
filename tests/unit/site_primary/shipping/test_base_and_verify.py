"""Verification where the journal came in pieces: all that is held is looked at, and no gap is damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.index.versions import VERSION_KEY
from engine.integrity.faults import Fault
from tests.unit.engine.group_rig import follow, take_other_line
from tests.unit.engine.integrity.test_verify_rounds import backup, begin, finish, flip_in_file
from tests.unit.site_primary.shipping.base_pair import BasePair

pytestmark = pytest.mark.usefixtures("run_sizes")

UTC_AT = 39  # the lowest byte of a prefix's time


def test_a_flipped_byte_below_a_base_is_found(pair: BasePair) -> None:
    volume = pair.one.create("root", 8)
    frame = pair.one.write(volume, 0, b"a")
    pair.one.write(volume, 1, b"b")
    follow(pair.one, pair.other)
    start = pair.other.end
    pair.one.write(volume, 2, b"c")
    pair.copy(start)
    at = begin(pair.other)
    assert finish(pair.other, at) == []
    assert at.journal_bytes == start.position + pair.other.group.timelines.bases[0].end
    flip_in_file(pair.other, frame.prefix, UTC_AT)
    found = finish(pair.other, begin(pair.other))
    assert [(damage.fault, damage.place[:2]) for damage in found] == [
        (Fault.FRAME, (frame.prefix.timeline, frame.prefix.position))
    ]


def test_a_missing_row_below_a_base_is_found(pair: BasePair) -> None:
    """The backup there is not called verified."""
    volume = pair.one.create("root", 8)
    number = pair.one.write(volume, 0, b"a").prefix.payload_at
    backup(pair.one, "early")
    follow(pair.one, pair.other)
    start = pair.other.end
    pair.one.write(volume, 2, b"c")
    pair.copy(start)
    at = begin(pair.other)
    lane = pair.other.group.timelines.get(start.timeline).lane
    with pair.other.group.store.write() as write:
        write.delete("versions", VERSION_KEY.pack(lane, volume, 0, number ^ ((1 << 64) - 1)))
    (damage,) = finish(pair.other, at)
    assert (damage.fault, damage.place) == (Fault.ROW_MISSING, (lane, volume, 0, number))
    assert [copy.label for copy, _ in pair.other.group.damage.copies()] == ["early"]


def test_pieces_between_bases_are_looked_at(pair: BasePair) -> None:
    volume = pair.one.create("root", 8)
    pair.copy(None)
    pieces = []
    for _ in range(3):
        pieces.append(pair.one.write(volume, 0, b"a"))
        follow(pair.one, pair.other)
        start = pair.other.end
        pair.one.write(volume, 1, b"b")
        pair.copy(start)
    rig = pair.other
    assert finish(rig, begin(rig)) == []
    for frame in pieces:
        flip_in_file(rig, frame.prefix, UTC_AT)
        assert [damage.place[1] for damage in finish(rig, begin(rig))] == [frame.prefix.position]
        flip_in_file(rig, frame.prefix, UTC_AT)


def test_a_gap_on_a_branch_is_no_damage(pair: BasePair, directory: Path) -> None:
    """A base came at the middle of a timeline, which became a branch later: it begins where the base is."""
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    follow(pair.one, pair.other)
    start = pair.other.end
    old = pair.older_one(directory / "old")
    pair.one.write(volume, 1, b"b")
    pair.copy(start)
    frame = pair.one.write(volume, 2, b"c")
    follow(pair.one, pair.other)
    old.open()
    old.write(volume, 3, b"d")
    take_other_line(pair.other, old)
    old.drop()
    for _ in range(2):
        assert finish(pair.other, begin(pair.other)) == []
        pair.other.reopen()
    flip_in_file(pair.other, frame.prefix, UTC_AT)
    found = finish(pair.other, begin(pair.other))
    assert [damage.place[:2] for damage in found] == [(frame.prefix.timeline, frame.prefix.position)]


def test_what_a_base_took_the_place_of_is_looked_at(pair: BasePair) -> None:
    """The site had gone on past the foot of the base, to a line of its own; both parts are still here."""
    volume = pair.one.create("root", 8)
    follow(pair.one, pair.other)
    start = pair.other.end
    shared = pair.one.write(volume, 0, b"a")
    follow(pair.one, pair.other)
    own = pair.other.write(volume, 1, b"t")
    pair.one.write(volume, 2, b"b")
    pair.leave = True
    pair.copy(start)
    rig = pair.other
    assert finish(rig, begin(rig)) == []
    for frame in (shared, own):
        flip_in_file(rig, frame.prefix, frame.prefix.frame_bytes - 1)
        found = [damage for damage in finish(rig, begin(rig)) if damage.fault is Fault.FRAME]
        assert [damage.place[1] for damage in found] == [frame.prefix.position]
        flip_in_file(rig, frame.prefix, frame.prefix.frame_bytes - 1)
