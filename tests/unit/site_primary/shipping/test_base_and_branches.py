"""Bases whose line became a branch: what is dropped with it, and what stays readable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.group.group import Group
from engine.group.site_state import Role
from engine.history import base_intake
from engine.history.base_checks import BaseOrder, check_order
from engine.history.base_recovery import take_base
from engine.history.base_rows import load_bases, put_base
from engine.history.bases import FIRST_BASE_LANE
from engine.history.branch_drop import BranchDrops, check_droppable
from engine.history.branches import branches, find_branch
from engine.history.cuts import cut_at_time
from engine.history.reach import gaps
from engine.history.timelines import Base
from engine.index.forgetting import ForgetPlan
from engine.index.requests import IndexerDone, IndexRequest
from engine.index.versions import VERSION_KEY
from protocol.errors import Refused, Trimmed, WrongState
from protocol.events import Revert
from protocol.positions import Cut
from tests.unit.engine.group_rig import GroupRig, follow, take_other_line
from tests.unit.engine.integrity.test_verify_rounds import begin, finish
from tests.unit.engine.retention.test_reclaim import fill, truncate
from tests.unit.site_primary.shipping.base_pair import BasePair

pytestmark = pytest.mark.usefixtures("run_sizes")


@pytest.fixture
def left(pair: BasePair, directory: Path) -> Base:
    """`other` got a base and then followed an older copy of the writer, which knows nothing of that line: the
    base, which is given, is on a branch."""
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    follow(pair.one, pair.other)
    start = pair.other.end
    old = pair.older_one(directory / "old")
    pair.one.write(volume, 1, b"b")
    pair.one.write(volume, 2, b"c")
    pair.copy(start)
    old.open()
    old.write(volume, 3, b"d")
    take_other_line(pair.other, old)
    old.drop()
    assert pair.other.letters("root") == "a..d...."
    [base] = pair.other.group.timelines.bases
    assert pair.other.letters("root", base.cut) == "abc....."
    return base


def drop(rig: GroupRig, timeline: int) -> None:
    branch = find_branch(rig.group, timeline)
    check_droppable(rig.group, branch)
    BranchDrops(rig.group, lambda _: None).begin(branch)


def base_versions(rig: GroupRig) -> int:
    """Rows in lanes of bases."""
    with rig.group.store.read() as read:
        cursor = read.cursor("versions")
        more = cursor.set_range(VERSION_KEY.pack(FIRST_BASE_LANE, 0, 0, 0))
        return int(more) + sum(1 for _ in iter(cursor.next, False)) if more else 0


def require_gone(rig: GroupRig, base: Base) -> None:
    assert rig.letters("root") == "a..d...."
    assert rig.group.timelines.bases == []
    with rig.group.store.read() as read:
        assert load_bases(read) == []
    assert base_versions(rig) == 0
    assert not rig.group.segments.of_timeline(base.timeline)
    assert base.cut.timeline not in rig.group.timelines


def test_a_base_goes_with_the_branch_that_it_is_on(pair: BasePair, left: Base) -> None:
    assert base_versions(pair.other) > 0
    drop(pair.other, left.cut.timeline)
    pair.other.settle(10.0)
    require_gone(pair.other, left)
    pair.other.reopen()
    require_gone(pair.other, left)


def test_a_tail_goes_of_whose_timeline_nothing_is_left(pair: BasePair) -> None:
    """It was truncated past where the other site left it, and no cut there was kept: a base that stands on
    nothing came in its place, and what the next frame there would continue is not known."""
    volume = pair.one.create("root", 16)
    follow(pair.one, pair.other)
    pair.other.write(volume, 0, b"a")
    follow(pair.other, pair.one)
    fork = pair.one.end
    fill(pair.other, volume, 3)
    truncate(pair.other)
    assert pair.other.group.kept.retention.truncated_to(fork.timeline) > fork.position
    pair.one.write(volume, 1, b"b")
    pair.leave = True
    pair.copy(None)
    assert pair.other.letters("root") == "ab" + "." * 14
    drop(pair.other, fork.timeline)
    pair.other.settle(10.0)
    for _ in range(2):
        assert not pair.other.group.dropping
        assert not branches(pair.other.group)
        assert not pair.other.group.segments.of_timeline(fork.timeline)
        assert pair.other.letters("root") == "ab" + "." * 14
        assert pair.other.group.end_of(fork.timeline) == pair.other.group.timelines.get(fork.timeline).fork
        pair.other.checkpoint()
        pair.other.reopen()
    frame = pair.one.write(volume, 2, b"c")
    pair.other.group.follow(frame.prefix, bytes(frame.raw))
    assert pair.other.letters("root") == "abc" + "." * 13


def test_a_base_in_a_lane_that_an_earlier_one_had_is_read_by_its_own_rows(
    pair: BasePair, left: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first had single blocks only, which a reader had found out; the second has runs too, at once and
    not from the next checkpoint on."""
    seen: list[str] = []

    def take_and_read(group: Group, base: Base, *rest: Any) -> None:
        take_base(group, base, *rest)
        seen.append(pair.other.letters("root", base.cut))

    monkeypatch.setattr(base_intake, "take_base", take_and_read)
    pair.other.checkpoint()
    assert pair.other.letters("root", left.cut) == "abc....."
    drop(pair.other, left.cut.timeline)
    pair.other.settle(10.0)
    require_gone(pair.other, left)
    volume = pair.one.group.volume("root").id
    pair.one.write(volume, 4, b"w", b"x", b"y", b"z")
    pair.leave = True
    pair.copy(left.start)
    [base] = pair.other.group.timelines.bases
    assert base.lane == left.lane
    assert seen == ["abc.wxyz"]


def test_a_kill_between_its_files_and_its_row(
    pair: BasePair, left: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index has no room for the last step: the next start goes on with it."""
    other = pair.other
    carry_out = other.indexer.start

    def start(request: IndexRequest, done: IndexerDone) -> None:
        if isinstance(request, ForgetPlan):
            done(OSError(28, "no space"), ())
        else:
            carry_out(request, done)

    monkeypatch.setattr(other.indexer, "start", start)
    drop(other, left.cut.timeline)
    other.settle(10.0)
    assert not other.group.segments.of_timeline(left.timeline)
    assert other.letters("root") == "a..d...."
    other.reopen()
    assert other.letters("root") == "a..d...."
    assert other.group.timelines.bases == [left]
    BranchDrops(other.group, lambda _: None).resume()
    other.settle(10.0)
    require_gone(other, left)


def test_a_base_whose_branch_is_gone_already_is_left_out(pair: BasePair, left: Base) -> None:
    """Earlier versions dropped branches and left such rows behind."""
    drop(pair.other, left.cut.timeline)
    pair.other.settle(10.0)
    with pair.other.group.store.write() as write:
        put_base(write, left)
    pair.other.reopen()
    assert pair.other.letters("root") == "a..d...."
    assert pair.other.group.timelines.bases == []


def test_a_branch_is_kept_while_a_volume_looks_through_its_base(pair: BasePair, left: Base) -> None:
    """It was turned back to the base's own cut: of the branch's own frames it sees none."""
    other = pair.other
    other.group.state.set_role("g", Role.PRIMARY)  # as a takeover does
    other.group.begin_writing()
    other.group.append_records([Revert(volume=other.group.volume("root").id, cut=left.cut)])
    assert other.letters("root") == "abc....."
    with pytest.raises(Refused, match="can still be read"):
        drop(other, left.cut.timeline)


def test_a_base_whose_foot_is_dropped_fails_nobody_else(pair: BasePair, left: Base) -> None:
    """One that stands on a cut of a branch: with that branch its own line can no longer be read, no other."""
    table = pair.other.group.timelines
    gone = Cut(left.cut.timeline ^ 2, 7)
    table.bases = [replace(left, start=gone)]
    assert pair.other.letters("root") == "a..d...."
    assert not pair.other.group.kept.readable(left.cut)


def require_gap(group: Group, utc_ns: int, after: Cut) -> None:
    """Of what lies after a cut, nothing came here up to the newest base: a time there is refused."""
    with pytest.raises(Trimmed, match=f"after {after} "):
        cut_at_time(group, utc_ns)
    assert gaps(group)[-1][0] == after


def test_a_branch_that_begins_in_the_gap_below_its_base(pair: BasePair, directory: Path) -> None:
    """The head's line left that of the first base at a place which never came here: what is cut back ends
    where its frames did."""
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    follow(pair.one, pair.other)
    start, own = pair.other.end, pair.other.files()
    never_came = pair.one.write(volume, 1, b"b").prefix.utc_ns
    pair.one.sync()
    # As an image of a running machine is: nothing is written meanwhile.
    old = pair.one.copy_to(directory / "old")
    old.world = pair.world
    pair.one.write(volume, 2, b"c")
    pair.copy(start)
    [first] = pair.other.group.timelines.bases
    pair.one.write(volume, 3, b"d")
    follow(pair.one, pair.other)
    one, pair.one = pair.one, old
    one.drop()
    old.open()
    old.write(volume, 4, b"e")
    pair.leave = True
    pair.copy(start)
    other = pair.other
    assert other.letters("root") == "ab..e..."
    assert other.letters("root", first.cut) == "abc....."
    require_gap(other.group, never_came, start)
    drop(other, first.cut.timeline)
    other.settle(10.0)
    for _ in range(2):
        require_gap(other.group, never_came, start)
        assert other.letters("root") == "ab..e..."
        assert other.letters("root", start) == "a......."
        assert branches(other.group) == []
        assert [base.cut for base in other.group.timelines.bases] == [other.end]
        assert other.group.end_of(start.timeline) == start.position
        assert finish(other, begin(other)) == []
        other.reopen()
    assert own.keys() <= other.files().keys()


def test_a_kill_after_the_line_that_was_left_for_a_base_went_on(pair: BasePair, directory: Path) -> None:
    """No checkpoint came in between: the index says still that the base was the last thing."""
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    pair.one.sync()
    old = pair.one.copy_to(directory / "old")
    old.world = pair.world
    follow(pair.one, pair.other)
    start = pair.other.end
    pair.one.reopen()
    pair.one.write(volume, 1, b"b")
    pair.copy(start)
    # The same run of the writer as far as anyone can tell: a machine that went on from an image.
    old.open()
    old.group.head.began = True
    old.write(volume, 3, b"d")
    for frame in old.group.reader.frames(start.timeline, start.position, old.end.position, None):
        pair.other.group.follow(frame.prefix, bytes(frame.raw), leave=True)
    end = old.end
    old.drop()
    pair.other.sync()
    for _ in range(2):
        assert pair.other.end == end
        assert pair.other.letters("root") == "a..d...."
        pair.other.reopen()


def test_a_base_that_stands_on_its_own_cut_is_refused(pair: BasePair, left: Base) -> None:
    """Whoever asked what is held below it would never come to an end."""
    for start in (left.cut, Cut(left.cut.timeline, pair.other.group.end_of(left.cut.timeline))):
        order = BaseOrder(timeline=77, cut=left.cut, start=start, digest=left.digest, utc_ns=1)
        with pytest.raises(WrongState, match="stands on"):
            check_order(pair.other.group, order)
