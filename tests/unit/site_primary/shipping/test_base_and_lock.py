"""A base and the retention lock: it takes nothing away, and may not say another past than what is held."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from msgspec import structs

from engine.group.settings import GroupSettings
from engine.index.versions import RECORD_KEY
from protocol.events import Mark, record_from_row
from protocol.positions import POSITION_MAX
from protocol.rows import pack_row, unpack_row
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import follow, memory_directory
from tests.unit.site_primary.shipping.base_pair import BasePair

LOCKED = GroupSettings(
    journal_limit_bytes=POSITION_MAX, reserve_bytes=0, window_s=0.0, window_bytes=0, lock_window_s=600.0
)


@pytest.fixture
def pair() -> Iterator[BasePair]:
    """Both hold a volume and a backup of it; `other` has a lock."""
    directory = memory_directory()
    made = BasePair(directory)
    made.other.group.settings = LOCKED
    volume = made.one.create("root", 16)
    made.one.write(volume, 0, b"a", b"b")
    take_backup(made.one.group, volume=None, label="gold", cut=None, pinned=True, rng=made.one.rng)
    made.one.sync()
    follow(made.one, made.other)
    made.other.sync()
    for rig in (made.one, made.other):
        rig.checkpoint()
        rig.settle(5.0)
    yield made
    made.close()
    shutil.rmtree(directory)


def test_what_was_held_before_a_base_can_be_read_after_it(pair: BasePair) -> None:
    one, other = pair.one, pair.other
    before, then = other.end, other.letters("root")
    one.write(one.group.volume("root").id, 1, b"x")
    one.sync()
    one.checkpoint()
    cut = pair.copy(None)
    assert other.end == cut
    other.settle(60.0)
    assert other.letters("root") == one.letters("root") != then
    assert other.letters("root", before) == then
    gold = other.group.copies.find(other.group.spans(), "gold", "g")
    assert other.letters("root", gold.cut) == then


def test_a_base_that_says_another_past_is_refused(pair: BasePair) -> None:
    """The peer's own index says that the backup is of another cut."""
    one, other = pair.one, pair.other
    gold = one.group.copies.find(one.group.spans(), "gold", "g")
    key = RECORD_KEY.pack(gold.timeline, gold.position)
    with one.group.store.write() as write:
        utc_ns, frame_position, row = unpack_row(write.get("records", key) or b"")
        mark = record_from_row(row)
        assert isinstance(mark, Mark)
        forged = structs.replace(mark, cut=one.end)
        write.put("records", key, pack_row((utc_ns, frame_position, forged.to_row())))
    one.write(one.group.volume("root").id, 1, b"x")
    one.sync()
    one.checkpoint()
    before = other.end
    sender = pair.start_sender(None)
    pair.connect()
    assert pair.world.run_until(lambda: sender.done or bool(pair.failures), 600.0)
    assert "another event" in pair.failures[0]
    assert other.end == before
    assert other.group.copies.find(other.group.spans(), "gold", "g") == gold
