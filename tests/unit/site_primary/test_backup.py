"""Taking a backup: one mark, exact at its own place whatever is written around it."""

from __future__ import annotations

import pytest

from engine.copies.copies import Copy
from protocol.errors import NotFound, Refused
from protocol.positions import Cut
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import GroupRig


def take(rig: GroupRig, label: str = "", volume: str | None = None, cut: Cut | None = None) -> Copy:
    return take_backup(rig.group, volume=volume, label=label, cut=cut, pinned=False, rng=rig.rng)


def test_a_backup_shows_what_was_written_before_it_and_nothing_after(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    copy = take(rig, "monday")
    rig.write(volume, 0, b"b")
    rig.write(volume, 1, b"c")
    assert rig.letters("root", copy.cut) == "a..."
    rig.checkpoint()
    rig.reopen()
    found = rig.group.copies.find(rig.group.spans(), "monday", "g")
    assert found == copy
    assert rig.letters("root", found.cut) == "a..."


def test_a_backup_of_the_group_names_every_volume(rig: GroupRig) -> None:
    ids = [rig.create(name, 4) for name in ("root", "data")]
    assert take(rig).volumes == tuple(ids)
    assert take(rig, volume="data").volumes == (ids[1],)


def test_a_label_is_taken_once(rig: GroupRig) -> None:
    rig.create("root", 4)
    take(rig, "monday")
    with pytest.raises(Refused, match="monday"):
        take(rig, "monday")
    assert take(rig).id != take(rig).id


def test_a_backup_may_name_an_earlier_cut(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    cut = rig.end
    rig.write(volume, 0, b"b")
    copy = take(rig, "before", cut=cut)
    assert copy.cut == cut
    assert rig.letters("root", copy.cut) == "a..."


def test_there_must_be_something_to_back_up(rig: GroupRig) -> None:
    with pytest.raises(NotFound):
        take(rig)
    rig.create("root", 4)
    before = rig.end
    with pytest.raises(NotFound):
        take(rig, volume="none")
    with pytest.raises(NotFound):
        take(rig, cut=Cut(rig.end.timeline, 0))
    assert rig.end == before


def test_a_backup_costs_one_frame_whatever_the_volume_holds(rig: GroupRig) -> None:
    volume = rig.create("root", 1 << 28)
    rig.write(volume, 0, *[b"a"] * 20)
    before = rig.end.position
    take(rig, "big")
    assert rig.end.position - before < 300


def test_the_first_thing_after_a_restart_may_be_a_backup(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    rig.reopen()
    copy = take(rig, "after")
    assert copy.timeline == rig.end.timeline
    assert rig.letters("root", copy.cut) == "a..."
