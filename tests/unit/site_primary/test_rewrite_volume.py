"""Turning a volume back by writes: only what differs, shut until it is done, right again from the start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from engine.history.volumes import Volume
from protocol.errors import Busy, Corruption, FarshoreError, Mismatch, Unreachable, WrongState
from protocol.events import ZERO, Revert
from protocol.limits import PEER_REQUEST_BLOCKS_MAX, PEER_REQUEST_PATIENCE_S
from protocol.positions import Cut
from site_primary.backup import take_backup
from site_primary.restore_volume import carry_out, plan_restore
from site_primary.rewrite_volume import (
    OwnPast,
    PeerPast,
    begin_rewrite,
    check_rewritten,
    count_changed,
    end_rewrite,
    rewrite,
)
from tests.unit.engine.group_rig import GroupRig, follow


async def at_once() -> None:
    """There is always room."""


class Turned:
    """A volume of 8 blocks, `ab......` at `cut`, `cb.d....` now."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.id = rig.create("root", 8)
        rig.write(self.id, 0, b"a", b"b")
        self.cut = rig.end
        rig.write(self.id, 0, b"c")
        rig.write(self.id, 3, b"d")
        self.before = rig.end

    @property
    def volume(self) -> Volume:
        return self.rig.group.volume("root")

    def past(self) -> OwnPast:
        return OwnPast(self.rig.group, self.volume, self.cut, self.before)

    def begin(self) -> None:
        begin_rewrite(self.rig.group, [self.volume], self.cut, self.before)

    def write(self, past: OwnPast | None = None) -> int:
        return asyncio.run(rewrite(self.rig.group, self.volume, past or self.past(), at_once))

    def half_way(self) -> bool:
        group = self.rig.group
        return group.volumes.half_way(group.spans(), self.id) is not None


@pytest.fixture
def turned(rig: GroupRig) -> Turned:
    return Turned(rig)


def test_only_what_differs_is_written(turned: Turned) -> None:
    assert asyncio.run(count_changed(turned.past())) == 2
    turned.begin()
    assert turned.write() == 2
    assert turned.rig.letters("root") == "ab......"
    assert turned.write() == 0
    end_rewrite(turned.rig.group, [turned.volume], turned.cut)
    asyncio.run(check_rewritten(turned.rig.group, turned.volume, turned.cut, turned.past(), list(range(8))))


def test_zeroes_travel_as_such(turned: Turned) -> None:
    turned.begin()
    start = turned.rig.end
    turned.write()
    prefixes = list(turned.rig.group.reader.prefixes(start.timeline, start.position, turned.rig.end.position))
    assert [(each.events, each.payload_bytes) for each in prefixes] == [(2, 4096)]


def test_what_was_before_stays_a_cut(turned: Turned) -> None:
    turned.begin()
    turned.write()
    end_rewrite(turned.rig.group, [turned.volume], turned.cut)
    turned.rig.checkpoint()
    turned.rig.reopen()
    assert turned.rig.letters("root", turned.before) == "cb.d...."
    plan = plan_restore(turned.rig.group, ["root"], turned.before, skip_missing=False)
    carry_out(turned.rig.group, plan)
    assert turned.rig.letters("root") == "cb.d...."


def test_a_crash_leaves_it_half_way(turned: Turned) -> None:
    """Known after a restart, with and without a checkpoint; done again from the start, it is complete."""
    turned.begin()
    turned.rig.append([(ZERO, turned.id, 3, 1)])
    turned.rig.sync()
    turned.rig.reopen()
    assert turned.half_way()
    turned.rig.checkpoint()
    turned.rig.reopen()
    assert turned.half_way()
    again = OwnPast(turned.rig.group, turned.volume, turned.cut, turned.rig.end)
    turned.begin()
    assert turned.write(again) == 1
    end_rewrite(turned.rig.group, [turned.volume], turned.cut)
    assert not turned.half_way()
    assert turned.rig.letters("root") == "ab......"


def test_half_way_is_known_at_both_sites(turned: Turned, make_rig: Callable[..., GroupRig]) -> None:
    other = make_rig("other", site="par", world=turned.rig.world)
    turned.begin()
    follow(turned.rig, other)
    with pytest.raises(WrongState, match=f"half way back to {turned.cut}"):
        other.group.volumes.require_whole(other.group.spans(), turned.id, "g/root")
    turned.write()
    end_rewrite(turned.rig.group, [turned.volume], turned.cut)
    follow(turned.rig, other)
    other.group.volumes.require_whole(other.group.spans(), turned.id, "g/root")
    assert other.letters("root") == "ab......"


def test_c49_half_an_image_is_known_at_both_sites(turned: Turned, make_rig: Callable[..., GroupRig]) -> None:
    """By the same records: on its way to no other cut than the one before."""
    other, group = make_rig("other", site="par", world=turned.rig.world), turned.rig.group
    before = turned.rig.end
    begin_rewrite(group, [turned.volume], before, before)
    follow(turned.rig, other)
    for each in (group, other.group):
        with pytest.raises(WrongState, match=f"only a part of an image, whose import began at {before}"):
            each.volumes.require_whole(each.spans(), turned.id, "g/root")
    end_rewrite(group, [turned.volume], turned.cut)
    follow(turned.rig, other)
    other.group.volumes.require_whole(other.group.spans(), turned.id, "g/root")


def test_no_backup_and_no_restore_of_what_is_half_way(turned: Turned) -> None:
    group = turned.rig.group
    turned.begin()
    middle = turned.rig.end
    with pytest.raises(WrongState, match="half way"):
        take_backup(group, volume=None, label="", cut=None, pinned=False, rng=turned.rig.rng)
    turned.write()
    end_rewrite(group, [turned.volume], turned.cut)
    with pytest.raises(WrongState, match="half way"):
        plan_restore(group, ["root"], middle, skip_missing=False)


def test_a_revert_ends_it_too(turned: Turned) -> None:
    turned.begin()
    turned.rig.append([(ZERO, turned.id, 3, 1)])
    turned.rig.group.append_records([Revert(volume=turned.id, cut=turned.before)])
    assert not turned.half_way()
    assert turned.rig.letters("root") == "cb.d...."


class OddPast:
    """Names blocks as it likes, and gives another content for one of them, or none."""

    def __init__(self, blocks: list[list[int]], damaged: bool = False) -> None:
        self.blocks = blocks
        self.damaged = damaged

    async def changed(self) -> AsyncIterator[list[int]]:
        for blocks in self.blocks:
            yield blocks

    async def contents(self, blocks: list[int]) -> list[bytes]:
        if self.damaged:
            raise Corruption("block 1 is damaged")
        return [bytes([97 + block]) * 4096 for block in blocks]


def test_blocks_may_come_twice(turned: Turned) -> None:
    written = asyncio.run(rewrite(turned.rig.group, turned.volume, OddPast([[0, 5], [], [0, 2]]), at_once))
    assert written == 4  # twice in one frame
    assert turned.rig.letters("root") == "abcd.f.."


def test_what_cannot_be_read_ends_it(turned: Turned) -> None:
    with pytest.raises(Corruption):
        asyncio.run(rewrite(turned.rig.group, turned.volume, OddPast([[1]], damaged=True), at_once))


def test_what_cannot_be_written_any_more_ends_it(turned: Turned) -> None:
    async def elsewhere() -> None:
        raise WrongState("written elsewhere")

    with pytest.raises(WrongState):
        asyncio.run(rewrite(turned.rig.group, turned.volume, turned.past(), elsewhere))
    assert turned.rig.letters("root") == "cb.d...."


def test_success_is_not_claimed_for_what_differs(turned: Turned) -> None:
    check = check_rewritten(turned.rig.group, turned.volume, Cut(1, 2), OddPast([]), [3])
    asyncio.run(check)
    with pytest.raises(Mismatch, match="block 4"):
        asyncio.run(check_rewritten(turned.rig.group, turned.volume, Cut(1, 2), OddPast([]), [4]))


class OtherSite:
    """Answers of the past of a volume as this site knows it. Refuses by turns as `script` says (None: an
    answer), each after `REFUSED_AFTER_S`; afterwards it answers."""

    REFUSED_AFTER_S = 25.0
    peer = "par"

    def __init__(self, turned: Turned) -> None:
        self.turned = turned
        self.script: list[FarshoreError | None] = []
        self.asked: list[list[int]] = []

    def past(self, patience_s: float = PEER_REQUEST_PATIENCE_S) -> PeerPast:
        turned, end = self.turned, self.turned.before
        questions: Any = self
        return PeerPast(turned.rig.group, turned.volume, turned.cut, end, questions, end, patience_s)

    def _refuse(self) -> None:
        refusal = self.script.pop(0) if self.script else None
        if refusal is not None:
            self.turned.rig.settle(self.REFUSED_AFTER_S)
            raise refusal

    async def changed(self, volume: int, before: Cut, after: Cut, first: int) -> tuple[list[int], int | None]:
        self.asked.append([first])
        self._refuse()
        assert (volume, before, after) == (self.turned.id, self.turned.cut, self.turned.before)
        blocks = [block async for part in self.turned.past().changed() for block in part]
        return [block for block in blocks if first <= block <= first + 1], first + 2 if first < 6 else None

    async def blocks_at(self, volume: int, cut: Cut, blocks: list[int]) -> list[bytes]:
        self.asked.append(blocks)
        self._refuse()
        return await self.turned.past().contents(blocks)


@pytest.fixture
def other(turned: Turned, monkeypatch: pytest.MonkeyPatch) -> OtherSite:
    """It is asked again at once."""
    monkeypatch.setattr("site_primary.rewrite_volume.ASK_AGAIN_S", 0.0)
    return OtherSite(turned)


AWAY = Unreachable("par does not answer: the connection was lost")
BUSY = Busy("par: too many questions wait for an answer")


def test_a_peer_that_is_away_or_busy_for_a_while_ends_nothing(turned: Turned, other: OtherSite) -> None:
    """Altogether it is away for longer than that: there were answers in between."""
    other.script = [AWAY, BUSY, None, BUSY, None, None, AWAY, AWAY, None, AWAY, BUSY]
    turned.begin()
    assert asyncio.run(rewrite(turned.rig.group, turned.volume, other.past(), at_once)) == 2
    assert other.script == []
    assert turned.rig.letters("root") == "ab......"
    assert other.asked == [[0]] * 3 + [[2]] * 2 + [[4]] + [[6]] * 3 + [[0, 3]] * 3


def test_a_peer_that_stays_away_ends_it_as_it_says(turned: Turned, other: OtherSite) -> None:
    turned.begin()
    for refusal in (AWAY, BUSY):
        for answers in (0, 4):
            other.asked = []
            other.script = [None] * answers + [refusal] * 100
            with pytest.raises(type(refusal)) as raised:
                asyncio.run(rewrite(turned.rig.group, turned.volume, other.past(), at_once))
            assert raised.value is refusal
            assert len(other.asked) == answers + 3  # after 25, 50 and 75 s


def test_who_waits_for_an_answer_is_told_at_once(other: OtherSite) -> None:
    other.script = [AWAY]
    with pytest.raises(Unreachable):
        asyncio.run(count_changed(other.past(patience_s=0.0)))
    assert len(other.asked) == 1


def test_what_came_is_not_asked_for_again(other: OtherSite) -> None:
    other.script = [None, AWAY]
    blocks = [0] * PEER_REQUEST_BLOCKS_MAX + [3]
    contents = asyncio.run(other.past().contents(blocks))
    assert [each[:1] for each in contents] == [b"a"] * PEER_REQUEST_BLOCKS_MAX + [b"\0"]
    assert other.asked == [blocks[:-1], [3], [3]]


def test_other_refusals_end_it(other: OtherSite) -> None:
    other.script = [WrongState("past the end")]
    with pytest.raises(WrongState):
        asyncio.run(count_changed(other.past()))
    assert len(other.asked) == 1
