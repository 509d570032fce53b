"""What a site found out about its copies, and the state that comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.copies.copies import Copy, CopyState
from engine.copies.copy_marks import CopyMark, copy_marks
from engine.copies.copy_states import state_of
from protocol.events import CopyDeleted
from protocol.positions import Cut
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import SETTINGS, GroupRig

pytestmark = pytest.mark.usefixtures("run_sizes")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[GroupRig]:
    rig = GroupRig(tmp_path)
    rig.open()
    yield rig
    rig.drop()


def backup(rig: GroupRig, label: str, cut: Cut | None = None) -> Copy:
    return take_backup(rig.group, volume=None, label=label, cut=cut, pinned=False, rng=rig.rng)


def test_states_over_a_copys_life(rig: GroupRig) -> None:
    rig.create("root")
    copy = backup(rig, "one")
    assert state_of(rig.group, copy) is CopyState.PENDING
    rig.sync()
    assert state_of(rig.group, copy) is CopyState.AVAILABLE
    rig.group.copies.verified(copy.id, 7)
    assert state_of(rig.group, copy) is CopyState.VERIFIED
    rig.group.copies.damaged(copy.id, "blocks 3 to 5 of root")
    assert state_of(rig.group, copy) is CopyState.DAMAGED
    rig.reopen()
    assert rig.group.copies.mark_of(copy.id) == CopyMark(7, "blocks 3 to 5 of root")
    assert state_of(rig.group, copy) is CopyState.DAMAGED
    rig.group.copies.verified(copy.id, 9)
    assert state_of(rig.group, copy) is CopyState.VERIFIED
    rig.group.copies.deleted(copy.id)
    rig.reopen()
    assert rig.group.copies.mark_of(copy.id) == CopyMark()


def test_who_had_a_copy_verified_counts_for_that_time(rig: GroupRig) -> None:
    rig.create("root")
    one, two = backup(rig, "one"), backup(rig, "two")
    copies = rig.group.copies
    copies.note_giver([one.id, two.id], 7, "uid:0")
    assert copies.verified_by(one.id) == ""  # a power loss before the next line
    copies.verified(one.id, 7)
    copies.verified(two.id, 7)
    copies.damaged(two.id, "blocks 3 to 5 of root")
    rig.reopen()
    copies = rig.group.copies
    assert [copies.verified_by(copy.id) for copy in (one, two)] == ["uid:0", "uid:0"]
    copies.verified(one.id, 9)  # by an earlier version, that does not note who
    assert copies.verified_by(one.id) == ""
    rig.group.append_records([CopyDeleted(copy_id=copy.id) for copy in (one, two)])
    copies.deleted(one.id)
    rig.sync()
    rig.reopen()
    assert rig.group.copies.verified_by(two.id) == ""
    assert rig.group.state.notes("verified_by") == {}


def test_what_is_known_of_a_copy_goes_with_it(rig: GroupRig) -> None:
    """Also at the site that only hears of the deletion."""
    rig.create("root")
    copy = backup(rig, "one")
    rig.group.copies.verified(copy.id, 7)
    rig.group.append_records([CopyDeleted(copy_id=copy.id)])
    rig.sync()
    rig.reopen()
    assert rig.group.copies.mark_of(copy.id) == CopyMark()
    assert copy_marks(rig.group.state, "g") == {}


def test_a_copy_whose_cut_was_truncated_first_is_expired(rig: GroupRig) -> None:
    """The mark of a retroactive backup may come long after this site gave the cut up."""
    volume = rig.create("root")
    rig.write(volume, 0, b"a")
    early = rig.end
    rig.write(volume, 0, b"b")
    rig.sync()
    rig.group.settings = replace(SETTINGS, window_s=0.0, window_bytes=0)
    rig.group.begin_writing()
    rig.reopen()  # a segment of its own begins
    rig.group.settings = replace(SETTINGS, window_s=0.0, window_bytes=0)
    rig.write(volume, 1, b"c")
    rig.sync()
    rig.write(volume, 1, b"d")
    rig.checkpoint()
    rig.settle(5.0)
    assert not rig.group.kept.readable(early)
    copy = replace(backup(rig, "late"), cut=early)
    rig.sync()
    assert state_of(rig.group, copy) is CopyState.EXPIRED


def test_a_deleted_copy_gives_its_versions_up(rig: GroupRig) -> None:
    volume = rig.create("root")
    rig.write(volume, 0, b"a")
    rig.sync()
    copy = backup(rig, "one")
    rig.write(volume, 0, b"b")
    rig.sync()
    rig.reopen()
    rig.group.settings = replace(SETTINGS, window_s=0.0, window_bytes=0)
    rig.write(volume, 1, b"c")
    rig.sync()
    rig.write(volume, 1, b"d")
    rig.checkpoint()
    rig.settle(5.0)
    assert rig.group.kept.retention.horizons
    assert rig.letters("root", copy.cut)[:2] == "a."
    rows = versions(rig)
    rig.group.append_records([CopyDeleted(copy_id=copy.id)])
    rig.group.reclaim.consider()
    assert rig.group.kept.readable(copy.cut), "the deletion is not durable yet"
    rig.sync()
    rig.settle(5.0)
    assert not rig.group.kept.readable(copy.cut)
    assert versions(rig) == rows - 1
    assert rig.letters("root")[:2] == "bd"


def versions(rig: GroupRig) -> int:
    """Rows of the index."""
    with rig.group.store.read() as transaction:
        cursor = transaction.cursor("versions")
        count, more = 0, cursor.set_range(b"\0")
        while more:
            count, more = count + 1, cursor.next()
    return count
