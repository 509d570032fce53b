"""Bases where both sites shorten their journals: what can be read is what it was, and nothing else can."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.history.bases import gap_at
from engine.history.branches import branches
from engine.history.cuts import checked_cut, cut_at_time
from engine.integrity.verify_rounds import VerifyRound
from engine.retention.journal_space import lease_of
from protocol.errors import Trimmed
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from tests.unit.engine.group_rig import GroupRig, follow
from tests.unit.engine.integrity.test_verify_rounds import finish
from tests.unit.engine.retention.test_truncation_model import KEEP_ALL, KEEP_NOTHING, Story
from tests.unit.site_primary.shipping.base_pair import BasePair
from tests.unit.site_primary.shipping.test_base_and_branches import drop

pytestmark = pytest.mark.usefixtures("run_sizes")


def truncate(rig: GroupRig) -> None:
    """All that may be truncated."""
    rig.group.settings = KEEP_NOTHING
    rig.checkpoint()
    rig.sync()
    rig.settle(5.0)
    rig.group.settings = KEEP_ALL


def check(story: Story, rig: GroupRig) -> int:
    """Every cut of the story at a site; the number of those that can be read."""
    group, readable = rig.group, 0
    for cut, snapshot in story.past.items():
        if cut.timeline not in group.timelines or cut.position > group.end_of(cut.timeline):
            continue
        if group.kept.readable(cut) and gap_at(group.timelines, cut) is None:
            readable += 1
            for name, expected in snapshot.items():
                assert rig.read(name, cut) == expected, f"{name} at {cut}"
        else:
            with pytest.raises(Trimmed):
                checked_cut(group, cut)
    for name, data in story.now.items():
        assert rig.read(name) == bytes(data), name
    return readable


def check_whole(rig: GroupRig) -> None:
    """No damage anywhere."""
    rig.sync()
    at = VerifyRound(
        group=rig.group,
        began_utc_ns=rig.group.clock.utc_ns(),
        target=rig.end,
        indexed=rig.group.checkpoints.reached,
    )
    assert finish(rig, at) == []


@pytest.mark.usefixtures("tiny_segments")
@pytest.mark.parametrize("seed", range(12))
def test_after_the_journal_was_shortened(directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr("site_primary.shipping.base_sender.BASE_PAYLOAD_BYTES", 5 * BLOCK_BYTES)
    monkeypatch.setattr("engine.history.base_intake.BASE_INDEX_BYTES", 12 * BLOCK_BYTES)
    pair = BasePair(directory, seed)
    try:
        _run(pair, seed)
    finally:
        pair.close()


def _run(pair: BasePair, seed: int) -> None:
    story = Story(seed, pair.one)
    start: Cut | None = None
    if seed % 3:
        for _ in range(20):
            story.write()
            story.note()
        follow(pair.one, pair.other)
        start = pair.other.end
        pair.one.group.kept.leases.hold(lease_of("par"), start, durable=True)
    for _ in range(4):
        for _ in range(story.rng.randrange(20, 60)):
            story.step()
        truncate(pair.one)
        if start is not None:
            assert pair.one.group.kept.readable(start)
        pair.copy(start)
        assert pair.other.end == pair.one.end
        check(story, pair.other)
        if story.rng.random() < 0.5:
            pair.restart_other()
        for _ in range(story.rng.randrange(0, 40)):
            story.write()
            story.note()
        follow(pair.one, pair.other)
        start = pair.other.end
        pair.one.group.kept.leases.hold(lease_of("par"), start, durable=True)
        if story.rng.random() < 0.7:
            truncate(pair.other)
            if story.rng.random() < 0.5:
                pair.restart_other()
        assert check(story, pair.other) > 0
        check(story, pair.one)
    check_whole(pair.other)
    check_whole(pair.one)


@pytest.mark.usefixtures("tiny_segments")
def test_times_above_what_was_truncated_below_a_base(directory: Path) -> None:
    """The timeline that the base is on is truncated here to somewhere below the gap."""
    pair = BasePair(directory, 1)
    try:
        volume = pair.one.create("root", 16)
        times: list[int] = []

        def write(count: int) -> None:
            for _ in range(count):
                pair.one.settle(1.0)
                times.append(pair.one.write(volume, len(times) % 16, b"x").prefix.utc_ns)

        write(40)
        follow(pair.one, pair.other)
        start = pair.other.end
        truncate(pair.other)
        truncated_to = pair.other.group.kept.retention.truncated_to(start.timeline)
        assert 0 < truncated_to < start.position
        write(3)
        cut = pair.copy(start)
        for at in times[-3:-1]:
            with pytest.raises(Trimmed, match=f"after {start}"):
                cut_at_time(pair.other.group, at)
        assert cut_at_time(pair.other.group, times[-1]) == cut
        with pytest.raises(Trimmed, match="oldest time"):
            cut_at_time(pair.other.group, times[0])
    finally:
        pair.close()


@pytest.mark.usefixtures("tiny_segments")
def test_a_gap_that_was_left_on_another_timeline_is_truncated_past(directory: Path) -> None:
    """The site had gone on by itself before the base came: where the gap begins, its own timeline does not
    say."""
    pair = BasePair(directory, 1)
    try:
        one, other = pair.one, pair.other
        volume = one.create("root", 16)
        for block in range(20):
            one.write(volume, block % 16, b"a")
        follow(one, other)
        start = other.end
        other.group.head.sealed = False  # as of who follows
        other.write(volume, 1, b"u")
        for block in range(20):
            one.write(volume, block % 16, b"b")
        pair.leave = True
        base = pair.copy(start)
        for block in range(60):
            one.write(volume, block % 16, b"c")
        follow(one, other)
        truncate(other)
        assert [fields for kind, fields in other.events if kind == "fold.failed"] == []
        assert other.group.kept.retention.truncated_to(base.timeline) == start.position
        for reopened in (False, True):
            if reopened:
                other.reopen()
            assert other.letters("root") == one.letters("root")
    finally:
        pair.close()


@pytest.mark.usefixtures("tiny_segments")
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("stands", [True, False])
def test_what_a_branch_shares_with_the_line_past_the_foot_of_a_base(
    directory: Path, stands: bool, dropped: bool
) -> None:
    """The site had followed past the cut that its base stands on, and then went on by itself: its branch
    needs those frames. They are truncated like all others, and stay readable until then without it."""
    pair = BasePair(directory, 1)
    try:
        one, other = pair.one, pair.other
        volume = one.create("root", 16)
        cuts = []
        for number in range(40):
            one.write(volume, number % 16, b"%c" % (ord("0") + number))
            cuts.append(one.end)
        start = cuts[29] if stands else None
        follow(one, other)
        shared = other.end
        other.group.head.sealed = False  # as of who follows
        other.write(volume, 1, b"u")
        branch, own = other.end, other.letters("root")
        past = {cut: other.letters("root", cut) for cut in cuts}
        for block in range(20):
            one.write(volume, block % 16, b"b")
        pair.leave = True
        pair.copy(start)
        if dropped:
            drop(other, branch.timeline)
            other.settle(10.0)
            assert branches(other.group) == []
        for reopened in (False, True):
            if reopened:
                other.reopen()
            for cut in cuts:
                assert other.letters("root", cut) == past[cut]
        for block in range(60):
            one.write(volume, block % 16, b"c")
            one.sync()
        follow(one, other)
        truncate(other)
        assert [fields for kind, fields in other.events if kind == "fold.failed"] == []
        assert other.group.kept.retention.truncated_to(shared.timeline) > shared.position
        for reopened in (False, True):
            if reopened:
                other.reopen()
            assert other.letters("root") == one.letters("root")
            if not dropped:
                assert other.letters("root", branch) == own
        check_whole(other)
    finally:
        pair.close()


@pytest.mark.usefixtures("tiny_segments")
@pytest.mark.parametrize("bases", [1, 2])
@pytest.mark.parametrize("stands", [True, False])
def test_a_gap_at_the_end_of_a_timeline_is_truncated_up_to(directory: Path, bases: int, stands: bool) -> None:
    """Its writer began another one right after the base: no frame of the old one came past the gap."""
    pair = BasePair(directory, 1)
    try:
        one, other = pair.one, pair.other
        volume = one.create("root", 16)
        for block in range(40):
            one.write(volume, block % 16, b"a")
        follow(one, other)
        held = other.end
        for letter in (b"b", b"c")[:bases]:
            start = other.end
            for block in range(20):
                one.write(volume, block % 16, letter)
            pair.copy(start if stands else None)
        one.reopen()
        for block in range(60):
            one.write(volume, block % 16, b"d")
        follow(one, other)
        truncate(other)
        assert [fields for kind, fields in other.events if kind == "fold.failed"] == []
        assert other.group.kept.retention.truncated_to(held.timeline) == held.position
        for reopened in (False, True):
            if reopened:
                other.reopen()
            assert other.letters("root") == one.letters("root")
    finally:
        pair.close()
