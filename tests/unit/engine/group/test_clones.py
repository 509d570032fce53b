"""Clones: writable from any cut, apart from the head and from each other, and gone when deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.group.clone_rows import CloneRow, clone_rows, put_clone, remove_clone
from engine.group.open_clone import Clone
from engine.history.branch_drop import BranchDrops
from engine.history.branches import branches
from protocol.errors import Refused, Trimmed, WrongState
from protocol.events import WRITE, ZERO, Revert
from protocol.positions import Cut
from tests.unit.engine.group_rig import GroupRig, filled
from tests.unit.engine.retention.test_reclaim import fill, truncate

pytestmark = pytest.mark.usefixtures("run_sizes")


def clone_of(rig: GroupRig, cut: Cut, name: str = "copy") -> Clone:
    """A clone of every volume at a cut."""
    group = rig.group
    volumes = group.volumes.at(group.timelines.lineage(cut.timeline, cut.position))
    return group.clones.create(
        CloneRow(
            name=name,
            group=group.name,
            cut=cut,
            timelines=(),
            volumes=tuple(volume.id for volume in volumes.values()),
            created_utc_ns=1,
            temporary=False,
            purpose="",
        )
    )


def write(clone: Clone, block: int, *contents: bytes) -> None:
    """As `GroupRig.write`."""
    payload = [filled(content) for content in contents]
    clone.append([(WRITE, clone.volume("root").id, block, len(payload))], payload, 4096 * len(payload))


def letters(clone: Clone) -> str:
    """As `GroupRig.letters`."""
    volume = clone.volume("root")
    view = clone.view(volume)
    with view.batch() as batch:
        blocks = [view.read_block(batch, block) for block in range(volume.size_bytes // 4096)]
    return "".join("." if not any(block) else chr(block[0]) for block in blocks)


def drop(rig: GroupRig, clone: Clone) -> None:
    """Delete a clone as the site does."""
    rig.group.clones.stop(clone)
    BranchDrops(rig.group, lambda _: None).begin(clone.branch())
    rig.group.clones.forget(clone)


def open_again(rig: GroupRig) -> Clone:
    """The clone of a group that was killed and opened."""
    rig.reopen()
    (clone,) = rig.group.clones
    return clone


def test_head_and_clone_are_apart(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"A", b"B")
    cut = rig.end
    rig.write(volume, 1, b"C")
    clone = clone_of(rig, cut)
    write(clone, 2, b"X")
    write(clone, 0, b"Y")
    rig.write(volume, 3, b"D")
    assert letters(clone) == "YBX."
    assert rig.letters("root") == "AC.D"
    assert rig.letters("root", cut) == "AB.."


def test_two_clones_of_one_cut(rig: GroupRig) -> None:
    volume = rig.create("root", 2)
    rig.write(volume, 0, b"A")
    one, other = clone_of(rig, rig.end), clone_of(rig, rig.end, "other")
    write(one, 0, b"X")
    write(other, 1, b"Y")
    rig.checkpoint()
    assert (letters(one), letters(other), rig.letters("root")) == ("X.", "AY", "A.")


@pytest.mark.parametrize("checkpoint", [True, False])
def test_zeroes_hide_what_the_cut_had(rig: GroupRig, checkpoint: bool) -> None:
    """A tombstone in the clone's lane, over a version in the group's."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"A", b"B", b"C", b"D")
    clone = clone_of(rig, rig.end)
    clone.append([(ZERO, volume, 1, 2)], (), 0)
    if checkpoint:
        rig.checkpoint()
    assert letters(clone) == "A..D"
    assert letters(open_again(rig)) == "A..D"
    assert rig.letters("root") == "ABCD"


@pytest.mark.parametrize("written", [(), ("volume",), ("volume", "clone")])
def test_zeroes_hide_what_a_restore_took_from_a_clone(rig: GroupRig, written: tuple[str, ...]) -> None:
    """One checkpoint may find the zeroes before what they hide: that is of another timeline."""
    volume = rig.create("root", 8)
    rig.write(volume, 0, b"A", b"B", b"C", b"D")
    if "volume" in written:
        rig.checkpoint()
    clone = clone_of(rig, rig.end)
    write(clone, 4, b"X", b"Y", b"Z", b"W")
    if "clone" in written:
        rig.checkpoint()
    rig.group.append_records([Revert(volume=volume, cut=clone.end)])
    rig.append([(ZERO, volume, 3, 4)])
    for _ in range(2):
        assert rig.letters("root") == "ABC....W"
        assert letters(clone) == "ABCDXYZW"
        rig.checkpoint()
    clone = open_again(rig)
    assert (rig.letters("root"), letters(clone)) == ("ABC....W", "ABCDXYZW")


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_clone_goes_on_after_a_kill(rig: GroupRig, checkpoint: bool) -> None:
    """By a timeline of its own for each run that writes; nothing of the group moves."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"A")
    clone = clone_of(rig, rig.end)
    write(clone, 1, b"X")
    if checkpoint:
        rig.checkpoint()
    clone = open_again(rig)
    assert letters(clone) == "AX.."
    rig.write(volume, 3, b"D")
    write(clone, 2, b"Y")
    clone = open_again(rig)
    assert letters(clone) == "AXY."
    assert rig.letters("root") == "A..D"
    assert len(clone.row.timelines) == 2


def test_a_clone_that_was_never_written_outlives_a_kill(rig: GroupRig) -> None:
    volume = rig.create("root", 2)
    rig.write(volume, 0, b"A")
    clone_of(rig, rig.end)
    rig.write(volume, 1, b"B")
    assert letters(open_again(rig)) == "A."


def test_a_checkpoint_is_made_for_a_clone_alone(rig: GroupRig) -> None:
    volume = rig.create("root", 8)
    rig.write(volume, 0, b"A")
    rig.checkpoint()
    clone = clone_of(rig, rig.end)
    write(clone, 1, b"X")
    assert rig.group.memtable.count
    rig.checkpoint()
    assert not rig.group.memtable.count
    assert letters(clone) == "AX" + 6 * "."
    assert rig.reopen().frames == 0


def test_no_branch_and_no_part_of_one(rig: GroupRig) -> None:
    volume = rig.create("root", 2)
    rig.write(volume, 0, b"A")
    clone = clone_of(rig, rig.end)
    write(clone, 0, b"B")
    assert branches(rig.group) == []
    with pytest.raises(Refused):
        clone_of(rig, clone.end, "again")


@pytest.mark.parametrize("checkpoint", [True, False])
def test_deleting_one_gives_everything_back(rig: GroupRig, checkpoint: bool) -> None:
    """Its files, its lane and its timelines; a new clone in the same lane sees nothing of it."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"A")
    before = set(rig.group.segments.timelines())
    clone = clone_of(rig, rig.end)
    write(clone, 1, b"X", b"Y")
    if checkpoint:
        rig.checkpoint()
    drop(rig, clone)
    with pytest.raises(WrongState):
        write(clone, 1, b"Z")
    rig.settle(5.0)
    assert set(rig.group.segments.timelines()) == before
    assert [each.id for each in rig.group.timelines.all()] == sorted(before)
    assert list(rig.group.clones) == []
    again = clone_of(rig, rig.end)
    assert letters(again) == "A..."
    rig.reopen()
    assert rig.letters("root") == "A..."


def test_a_deletion_that_a_kill_interrupted_goes_on(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"A")
    before = set(rig.group.segments.timelines())
    clone = clone_of(rig, rig.end)
    write(clone, 1, b"X")
    rig.indexer.hold = True
    drop(rig, clone)
    rig.reopen()
    BranchDrops(rig.group, lambda _: None).resume()
    rig.settle(5.0)
    assert set(rig.group.segments.timelines()) == before
    assert list(rig.group.clones) == []


def test_a_row_that_a_kill_kept_from_going_goes(rig: GroupRig) -> None:
    """The drop is noted, the clone's row still there."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"A")
    clone = clone_of(rig, rig.end)
    rig.group.clones.stop(clone)
    rig.indexer.hold = True
    BranchDrops(rig.group, lambda _: None).begin(clone.branch())
    rig.reopen()
    assert list(rig.group.clones) == []
    assert clone_rows(rig.group.state, "g") == []


def test_what_a_kill_left_of_a_clone_without_a_row_goes(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"A")
    before = set(rig.group.segments.timelines())
    clone_of(rig, rig.end)
    remove_clone(rig.group.state, "copy")
    rig.reopen()
    assert set(rig.group.segments.timelines()) == before


def test_the_cut_stays_readable_below_the_floor(rig: GroupRig) -> None:
    """History around it is truncated; the clone still sees all of its cut, and so does a restart."""
    volume = rig.create("root", 16)
    cuts = fill(rig, volume, 2)
    then = rig.letters("root", cuts[10])
    clone = clone_of(rig, cuts[10])
    write(clone, 12, b"X")
    fill(rig, volume, 2)
    truncate(rig)
    with pytest.raises(Trimmed):
        rig.group.kept.require(cuts[11])
    expected = then[:12] + "X" + then[13:]
    assert letters(clone) == expected
    assert letters(open_again(rig)) == expected


def test_rows_of_other_groups_are_left_alone(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"A")
    clone = clone_of(rig, rig.end)
    put_clone(rig.group.state, replace(clone.row, name="theirs", group="other"))
    rig.reopen()
    assert [each.name for each in rig.group.clones] == ["copy"]
