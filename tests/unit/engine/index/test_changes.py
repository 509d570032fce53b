"""Changed blocks between two cuts: never one too few, and what is stepped over costs nothing."""

from __future__ import annotations

import itertools

import pytest

from engine.history.visibility import Interval, visibility
from engine.index.changes import ChangeScan, difference
from engine.index.versions import REGION_BLOCKS
from protocol.events import TRIM, WRITE, ZERO
from protocol.positions import Cut
from tests.unit.engine.group_rig import GroupRig
from tests.unit.engine.random_history import BLOCKS, RandomHistory


def scan(
    rig: GroupRig, volume: int, blocks: int, before: Cut | None, after: Cut, first: int = 0
) -> ChangeScan:
    group = rig.group

    def seen(cut: Cut) -> tuple[Interval, ...]:
        return visibility(group.timelines, group.volumes, volume, cut.timeline, cut.position)

    return ChangeScan(
        store=group.store,
        memtable=group.memtable,
        volume=volume,
        blocks=blocks,
        before=seen(before) if before else (),
        after=seen(after),
        first=first,
    )


def blocks_of(made: ChangeScan, rows_max: int = 1000) -> list[int]:
    found: list[int] = []
    while not made.done:
        found += made.slice(rows_max)
    assert found == sorted(set(found))
    return found


def test_the_difference_of_two_visibilities() -> None:
    before = (Interval(0, 100, 200), Interval(0, 0, 50))
    assert difference(before, before) == {}
    assert difference((), before) == {0: [(0, 50), (100, 200)]}
    assert difference(before, (Interval(0, 0, 200),)) == {0: [(50, 100)]}
    after = (Interval(1, 300, 400), Interval(0, 150, 200), Interval(0, 100, 150))
    assert difference(before, after) == {0: [(0, 50)], 1: [(300, 400)]}


@pytest.mark.usefixtures("run_sizes")
@pytest.mark.parametrize("seed", range(12))
def test_no_changed_block_is_missed(rig: GroupRig, seed: int) -> None:
    """Every pair of remembered cuts, forth and back, across reverts, restarts and checkpoints."""
    history = RandomHistory(rig, seed)
    history.run(120)
    volume = rig.group.volume("root").id
    cuts = sorted(history.at, key=lambda cut: cut.position)
    for before, after in itertools.permutations(history.rng.sample(cuts, min(9, len(cuts))), 2):
        one, other = history.at[before]["root"], history.at[after]["root"]
        differing = {block for block in range(BLOCKS) if one.get(block) != other.get(block)}
        for rows_max in (3, 1000):
            found = set(blocks_of(scan(rig, volume, BLOCKS, before, after), rows_max))
            assert differing <= found
    last = cuts[-1]
    found = set(blocks_of(scan(rig, volume, BLOCKS, None, last)))
    assert set(history.at[last]["root"]) <= found


def test_what_was_not_touched_is_not_named(rig: GroupRig) -> None:
    volume = rig.create("root", 64)
    rig.write(volume, 0, *([b"a"] * 20))
    before = rig.end
    rig.write(volume, 5, b"b")
    rig.append([(ZERO, volume, 9, 2), (TRIM, volume, 40, 3), (WRITE, volume, 60, 1)], b"c")
    expected = [5, 9, 10, 40, 41, 42, 60]
    assert blocks_of(scan(rig, volume, 64, before, rig.end)) == expected
    rig.checkpoint()
    # In the index there are no tombstones over what was never written.
    assert blocks_of(scan(rig, volume, 64, before, rig.end)) == [5, 9, 10, 60]
    assert blocks_of(scan(rig, volume, 64, before, before)) == []


def test_later_writes_do_not_hide_earlier_ones(rig: GroupRig) -> None:
    volume = rig.create("root", 64)
    rig.write(volume, 1, b"a")
    before = rig.end
    rig.write(volume, 1, b"b")
    after = rig.end
    rig.write(volume, 1, b"c")
    rig.write(volume, 2, b"c")
    for _ in range(2):
        assert blocks_of(scan(rig, volume, 64, before, after)) == [1]
        rig.checkpoint()


def test_a_slice_is_bounded_and_can_be_gone_on_from(rig: GroupRig) -> None:
    volume = rig.create("root", 512)
    for at in range(0, 512, 32):
        rig.write(volume, at, *([b"a"] * 32))
    rig.checkpoint()
    made = scan(rig, volume, 512, None, rig.end)
    assert made.slice(100) == list(range(112))  # whole runs
    assert made.rows == made.next_block == 112
    assert blocks_of(scan(rig, volume, 512, None, rig.end, first=100)) == list(range(100, 512))


def test_regions_without_changes_are_stepped_over(rig: GroupRig) -> None:
    """A terabyte in which a gigabyte was written must not cost a terabyte's rows."""
    blocks = 4 * REGION_BLOCKS
    volume = rig.create("root", blocks)
    for region in range(4):
        rig.write(volume, region * REGION_BLOCKS + 7, *([b"a"] * 50))
    before = rig.end
    rig.checkpoint()
    rig.write(volume, 2 * REGION_BLOCKS + 8, b"b", b"c")
    rig.append([(ZERO, volume, 3 * REGION_BLOCKS, 100)])
    rig.checkpoint()
    made = scan(rig, volume, blocks, before, rig.end)
    zeroed = [3 * REGION_BLOCKS + block for block in range(7, 57)]
    assert blocks_of(made) == [2 * REGION_BLOCKS + 8, 2 * REGION_BLOCKS + 9, *zeroed]
    assert made.rows <= 2 + 50 + 50
