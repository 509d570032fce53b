"""A group at rest is looked at less closely, and notices all the same what changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.retention.journal_space import JournalSpace, ReplicationSlot
from engine.retention.looking import REST_S
from engine.retention.reclaim import POLL_S
from protocol.positions import Cut
from site_primary.backup import delete_backups, take_backup
from tests.unit.engine.group_rig import SETTINGS, GroupRig
from tests.unit.engine.retention.test_reclaim import KEEP_NOTHING, fill

MakeRig = Callable[..., GroupRig]
MINUTE_S = 60.0


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Has one more with each whole look."""
    found: list[None] = []
    measure = JournalSpace.measure

    def counted(space: JournalSpace, reclaimable_bytes: int, *, blocked: bool) -> None:
        found.append(None)
        measure(space, reclaimable_bytes, blocked=blocked)

    monkeypatch.setattr(JournalSpace, "measure", counted)
    return found


def rest(rig: GroupRig) -> None:
    """Until it is, since a while."""
    rig.sync()
    rig.settle(MINUTE_S)


def test_at_rest_a_group_is_looked_at_every_ten_seconds(rig: GroupRig, looks: list[None]) -> None:
    fill(rig, rig.create("root", 16), 2)
    rest(rig)
    looks.clear()
    rig.settle(MINUTE_S)
    assert MINUTE_S / (REST_S + POLL_S) - 1 <= len(looks) <= MINUTE_S / REST_S + 1


def test_one_that_is_written_is_looked_at_each_time(rig: GroupRig, looks: list[None]) -> None:
    volume = rig.create("root", 16)
    rest(rig)
    looks.clear()
    for _ in range(5):
        rig.write(volume, 1, b"a")
        rig.sync()
        rig.settle(POLL_S)
    assert len(looks) >= 5


def test_what_is_not_durable_is_no_rest(rig: GroupRig, looks: list[None]) -> None:
    volume = rig.create("root", 16)
    rest(rig)
    rig.write(volume, 1, b"a")
    assert rig.group.writer.durable < rig.group.writer.written
    rig.group.reclaim.consider()
    looks.clear()
    rig.sync()
    rig.settle(POLL_S)
    assert looks


def test_another_setting_is_noticed_at_once(rig: GroupRig) -> None:
    fill(rig, rig.create("root", 16), 2)
    rest(rig)
    rig.group.settings = KEEP_NOTHING
    rig.settle(POLL_S)
    assert len(rig.segment_files()) == 1


def test_so_is_what_a_holder_has_come_to(make_rig: MakeRig) -> None:
    rig = make_rig(settings=KEEP_NOTHING)
    volume = rig.create("root", 16)
    confirmed = [rig.end]
    slot = ReplicationSlot(confirmed=lambda: confirmed[0], detach=lambda: None)
    rig.group.space.hold("par", slot)
    fill(rig, volume, 2)
    rest(rig)
    files = len(rig.segment_files())
    assert files > 2
    confirmed[0] = rig.end
    rig.settle(POLL_S)
    assert len(rig.segment_files()) == 1


def test_so_is_a_holder_that_lets_go(make_rig: MakeRig) -> None:
    rig = make_rig(settings=KEEP_NOTHING)
    volume = rig.create("root", 16)
    nothing = Cut(rig.group.head.timeline, 0)
    rig.group.space.hold("par", ReplicationSlot(confirmed=lambda: nothing, detach=lambda: None))
    fill(rig, volume, 2)
    rest(rig)
    rig.group.space.release("par")
    rig.settle(POLL_S)
    assert len(rig.segment_files()) == 1


def test_so_is_a_backup_that_is_deleted(make_rig: MakeRig) -> None:
    rig = make_rig(settings=KEEP_NOTHING)
    volume = rig.create("root", 16)
    rig.write(volume, 3, b"k")
    take_backup(rig.group, volume=None, label="kept", cut=None, pinned=False, rng=rig.rng)
    (copy,) = rig.group.copies.at(rig.group.spans())
    rig.write(volume, 3, b"n")
    fill(rig, volume, 2)
    rest(rig)
    assert copy.cut in rig.group.kept.retention.kept
    delete_backups(rig.group, [copy])
    rig.sync()
    rig.settle(2 * POLL_S)
    assert copy.cut not in rig.group.kept.retention.kept


def test_what_leaves_the_window_goes_soon_after(make_rig: MakeRig) -> None:
    rig = make_rig(settings=replace(SETTINGS, window_s=10 * MINUTE_S))
    volume = rig.create("root", 16)
    fill(rig, volume, 2)
    rest(rig)
    rig.settle(10 * MINUTE_S)
    assert len(rig.segment_files()) == 3, "there is nothing newer"
    rig.write(volume, 1, b"a")
    rig.sync()
    rig.write(volume, 1, b"b")
    rest(rig)
    rig.settle(10 * MINUTE_S)
    rig.write(volume, 1, b"c")
    rig.sync()
    rig.settle(REST_S + 2 * POLL_S)
    assert len(rig.segment_files()) == 1


def test_others_that_fill_the_disk_are_noticed_soon_after(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(rig, rig.create("root", 16), 2)
    rest(rig)
    rig.events.clear()
    monkeypatch.setattr(type(rig.group.disk), "free_bytes", lambda _: 1)
    rig.settle(REST_S + POLL_S)
    assert [kind for kind, _ in rig.events][:1] == ["fold.failed"], "the window is to give way, without room"
