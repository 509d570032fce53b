"""From what a user wrote to a cut: the right frame boundary, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.group.site_state import Role
from engine.history.cuts import cut_at_time, resolve_cut
from protocol.cut_text import CutBackup, CutLabel, CutLatest, CutPosition, CutTime, NamedCut
from protocol.errors import FarshoreError, NotFound, Unsafe, WrongState
from protocol.positions import Cut
from site_primary.backup import take_backup
from tests.sim.world import NS
from tests.unit.engine.group_rig import GroupRig

MakeRig = Callable[..., GroupRig]


class Written:
    """One frame a second over three runs; `moments` are (UTC ns of the frame, cut behind it)."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.volume = rig.create("root")
        self.moments: list[tuple[int, Cut]] = []
        for run in range(3):
            for block in range(30):
                rig.settle(1.0)
                frame = rig.write(self.volume, block, b"a", b"b")
                self.moments.append((frame.prefix.utc_ns, rig.end))
            if run < 2:
                rig.reopen()

    def resolve(self, cut: NamedCut, role: Role = Role.PRIMARY, until: int = 1 << 62) -> Cut:
        return resolve_cut(self.rig.group, cut, role=role, complete_until_ns=until)


@pytest.fixture
def written(rig: GroupRig) -> Written:
    return Written(rig)


def test_a_time_is_the_last_frame_at_or_before_it(written: Written) -> None:
    for utc_ns, cut in written.moments:
        assert written.resolve(CutTime(utc_ns)) == cut
        assert written.resolve(CutTime(utc_ns + NS // 2)) == cut
    before = {cut for _, cut in written.moments}
    for (_, earlier), (utc_ns, _) in zip(written.moments[5:], written.moments[6:], strict=False):
        found = written.resolve(CutTime(utc_ns - 1))
        # A run's first frame says how its timeline began; nobody wrote there.
        assert found == earlier or found not in before


def test_a_time_after_the_last_frame_is_the_end(written: Written) -> None:
    assert written.resolve(CutTime(written.moments[-1][0] + 3600 * NS)) == written.rig.end


def test_a_time_that_has_not_come_is_refused(written: Written) -> None:
    utc_ns = written.moments[-1][0]
    with pytest.raises(WrongState, match="not come yet"):
        written.resolve(CutTime(utc_ns + 3600 * NS), until=utc_ns)


def test_after_the_clock_went_back_no_time_gives_a_state_before_the_jump(written: Written) -> None:
    """The clock jumps one day ahead and back: `--at now` and `--at -1s` gave what was before the jump."""
    rig, day_s = written.rig, 86_400.0
    before_ns, before = written.moments[-2]
    rig.clock.jump(day_s)
    rig.write(written.volume, 1, b"c", b"d")
    rig.clock.jump(-day_s)
    for block in range(3):
        rig.settle(1.0)
        rig.write(written.volume, block, b"e", b"f")
        for ago_s in (0, 1):
            with pytest.raises(Unsafe, match="ahead of this site's clock"):
                written.resolve(CutTime(rig.clock.utc_ns() - ago_s * NS))
    assert written.resolve(CutTime(before_ns)) == before
    assert written.resolve(CutLatest()) == rig.end
    rig.settle(day_s + 60)
    assert written.resolve(CutTime(rig.clock.utc_ns())) == rig.end


def test_a_time_before_the_first_frame_is_not_found(written: Written) -> None:
    with pytest.raises(NotFound):
        cut_at_time(written.rig.group, 5)


def test_a_secondary_answers_no_time_that_may_change(written: Written) -> None:
    utc_ns, cut = written.moments[40]
    assert written.resolve(CutTime(utc_ns), Role.SECONDARY, until=utc_ns) == cut
    with pytest.raises(WrongState, match="every write"):
        written.resolve(CutTime(utc_ns + 1), Role.SECONDARY, until=utc_ns)


def test_latest_is_the_end(written: Written) -> None:
    assert written.resolve(CutLatest()) == written.rig.end


def test_any_boundary_is_a_cut(written: Written) -> None:
    for _, cut in written.moments:
        assert written.resolve(CutPosition(cut.timeline, cut.position)) == cut


def test_a_fork_is_a_cut_of_both_timelines(written: Written) -> None:
    for timeline in written.rig.group.timelines.all()[1:]:
        assert written.resolve(CutPosition(timeline.id, timeline.fork)).position == timeline.fork
        assert written.resolve(CutPosition(timeline.parent, timeline.fork)).timeline == timeline.parent


def refused(written: Written, cut: Cut) -> FarshoreError:
    with pytest.raises(FarshoreError) as caught:
        written.resolve(CutPosition(cut.timeline, cut.position))
    assert caught.value.position == str(cut) or caught.value.position == str(written.rig.end)
    assert caught.value.next_step
    return caught.value


def test_a_place_between_boundaries_is_not_found(written: Written) -> None:
    for _, cut in (written.moments[3], written.moments[-1]):
        for shift in (-1, 1):
            error = refused(written, Cut(cut.timeline, cut.position - 100 + shift))
            assert isinstance(error, NotFound)


def test_a_place_past_the_end_says_how_to_wait_for_it(written: Written) -> None:
    end = written.rig.end
    error = refused(written, Cut(end.timeline, end.position + 1))
    assert isinstance(error, WrongState)
    assert "farshore wait" in error.next_step


def test_a_timeline_that_is_not_held_is_not_found(written: Written) -> None:
    with pytest.raises(NotFound):
        written.resolve(CutPosition(0x1234, 100))


def test_a_place_past_the_end_of_a_timeline_that_was_left_is_not_held(written: Written) -> None:
    group = written.rig.group
    first = group.timelines.all()[0]
    with pytest.raises(WrongState, match="past the end"):
        written.resolve(CutPosition(first.id, group.end_of(first.id) + 1))


def test_a_backup_is_found_by_label_and_id(written: Written) -> None:
    group = written.rig.group
    copy = take_backup(group, volume=None, label="monday", cut=None, pinned=False, rng=written.rig.rng)
    written.rig.write(written.volume, 0, b"z")
    assert written.resolve(CutLabel("monday")) == copy.cut
    assert written.resolve(CutBackup(f"{copy.id:016x}")) == copy.cut
    assert written.rig.letters("root", copy.cut)[0] == "a"
    with pytest.raises(NotFound):
        written.resolve(CutLabel("tuesday"))


def test_time_is_found_through_many_segments(make_rig: MakeRig) -> None:
    rig = make_rig()
    volume = rig.create("root")
    moments = []
    for block in range(200):
        rig.settle(0.5)
        moments.append((rig.write(volume, block % 64, b"a").prefix.utc_ns, rig.end))
    assert len(rig.segment_files()) > 3
    for utc_ns, cut in moments[::7]:
        assert cut_at_time(rig.group, utc_ns) == cut
