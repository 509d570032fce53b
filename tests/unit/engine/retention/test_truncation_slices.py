"""A segment that names more blocks than one request looks at: a large volume was discarded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from engine.index.versions import unpack_version_key
from engine.retention import truncation
from engine.retention.reclaim import POLL_S
from engine.retention.reclaim_requests import FIRST_BLOCK, TruncatePlan
from engine.retention.thinning import Block, SegmentBytes, Thinning
from protocol.events import TRIM, CopyDeleted
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import GroupRig
from tests.unit.engine.retention.test_reclaim import KEEP_ALL, KEEP_NOTHING, truncate

pytestmark = pytest.mark.usefixtures("run_sizes")

BLOCKS = 96
A_REQUEST = 10


class Discarded:
    """A volume with a backup, all of which is discarded, and a little written since."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig, group = rig, rig.group
        volume = rig.create("root", BLOCKS)
        for at in range(0, BLOCKS, 16):
            rig.write(volume, at, *[bytes([97 + at // 16])] * 16)
        take_backup(group, volume=None, label="kept", cut=None, pinned=False, rng=rig.rng)
        self.cut = group.copies.find(group.spans(), "kept", "g").cut
        self.then = rig.letters("root", self.cut)
        rig.append([(TRIM, volume, 0, BLOCKS)])
        goal = len(rig.segment_files()) + 2
        while len(rig.segment_files()) < goal:
            rig.write(volume, 20, *[b"x"] * 8)
        rig.sync()
        rig.write(volume, 20, b"y")
        rig.sync()
        rig.checkpoint()
        self.now = "." * 20 + "y" + "x" * 7 + "." * (BLOCKS - 28)

    def require_whole(self) -> None:
        assert (self.rig.letters("root"), self.rig.letters("root", self.cut)) == (self.now, self.then)

    @property
    def asked(self) -> list[TruncatePlan]:
        return [each for each in self.rig.indexer.requests if isinstance(each, TruncatePlan)]


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Block]:
    """Every block that truncations looked at, of which a request may have few."""
    found: list[Block] = []

    def thin_all(self: Thinning, lane: int, volume: int, blocks: Iterable[int], source: SegmentBytes) -> None:
        numbers = list(blocks)
        found.extend((lane, volume, number) for number in numbers)
        before(self, lane, volume, numbers, source)

    before = Thinning.thin_all
    monkeypatch.setattr(Thinning, "thin_all", thin_all)
    monkeypatch.setattr(truncation, "BLOCKS_MAX", A_REQUEST)
    monkeypatch.setattr(truncation, "WINDOW_BLOCKS", 7)
    return found


def test_each_request_looks_at_so_many_and_each_block_has_its_turn(
    rig: GroupRig, looked_at: list[Block]
) -> None:
    story = Discarded(rig)
    truncate(rig)
    assert len(rig.segment_files()) == 1
    story.require_whole()
    (most,) = Counter(plan.start for plan in story.asked).most_common(1)
    assert most[1] >= BLOCKS // A_REQUEST
    slices = [plan.after for plan in story.asked if plan.start == most[0]]
    assert slices == sorted(set(slices))
    assert slices[0] == FIRST_BLOCK
    assert len(looked_at) <= len(story.asked) * A_REQUEST
    assert {number for _, _, number in looked_at} == set(range(BLOCKS))
    rig.reopen()
    story.require_whole()


@pytest.mark.parametrize("answers", range(0, 18, 3))
def test_a_kill_after_any_of_them_costs_nothing(rig: GroupRig, looked_at: list[Block], answers: int) -> None:
    """A file stays until the last of its requests, and what is done is done again."""
    story = Discarded(rig)
    rig.indexer.hold = True
    truncate(rig)
    rig.group.settings = KEEP_NOTHING
    for _ in range(answers):
        rig.indexer.answer()
        story.require_whole()
    rig.group.settings = KEEP_ALL
    assert len(story.asked) == answers + 1
    rig.reopen()
    story.require_whole()
    truncate(rig)
    assert len(rig.segment_files()) == 1
    story.require_whole()


def test_what_a_deleted_backup_kept_goes_all_the_same(rig: GroupRig, looked_at: list[Block]) -> None:
    story = Discarded(rig)
    group = rig.group
    rig.indexer.hold = True
    group.settings = KEEP_NOTHING
    rig.settle(POLL_S)
    while len(story.asked) < 12:
        rig.indexer.answer()
    group.append_records([CopyDeleted(copy_id=group.copies.find(group.spans(), "kept", "g").id)])
    rig.sync()
    rig.indexer.hold = False
    rig.indexer.answer()
    rig.settle(10.0)
    assert not group.kept.readable(story.cut)
    assert rig.letters("root") == story.now
    with group.store.read() as transaction:
        cursor, stored = transaction.cursor("blocks"), []
        more = cursor.set_range(b"\0")
        while more:
            stored.append(unpack_version_key(cursor.key())[2])
            more = cursor.next()
    assert set(stored) <= set(range(20, 28))
    assert len(stored) == len(set(stored))
