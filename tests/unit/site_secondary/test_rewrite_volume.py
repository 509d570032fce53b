"""Turning a volume back by writes: only what differs, shut until it is done, right again from the start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from engine.volumes import Volume
from protocol.errors import Corruption, Mismatch, WrongState
from protocol.events import ZERO, Revert
from protocol.positions import Cut
from site_primary.backup import take_backup
from site_secondary.restore_volume import carry_out, plan_restore
from site_secondary.rewrite_volume import (
    OwnPast,
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
    end_rewrite(turned.rig.group, [turned.volume])
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
    end_rewrite(turned.rig.group, [turned.volume])
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
    end_rewrite(turned.rig.group, [turned.volume])
    assert not turned.half_way()
    assert turned.rig.letters("root") == "ab......"


def test_half_way_is_known_at_both_sites(turned: Turned, make_rig: Callable[..., GroupRig]) -> None:
    other = make_rig("other", site="par", world=turned.rig.world)
    turned.begin()
    follow(turned.rig, other)
    with pytest.raises(WrongState, match=f"half way back to {turned.cut}"):
        other.group.volumes.require_whole(other.group.spans(), turned.id, "g/root")
    turned.write()
    end_rewrite(turned.rig.group, [turned.volume])
    follow(turned.rig, other)
    other.group.volumes.require_whole(other.group.spans(), turned.id, "g/root")
    assert other.letters("root") == "ab......"


def test_no_backup_and_no_restore_of_what_is_half_way(turned: Turned) -> None:
    group = turned.rig.group
    turned.begin()
    middle = turned.rig.end
    with pytest.raises(WrongState, match="half way"):
        take_backup(group, volume=None, label="", cut=None, pinned=False, rng=turned.rig.rng)
    turned.write()
    end_rewrite(group, [turned.volume])
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
