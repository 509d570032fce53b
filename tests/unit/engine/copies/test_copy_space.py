"""What a copy takes: what it says is unique is what comes back once it is deleted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.copies import copy_space
from engine.copies.copies import Copy
from engine.copies.copy_space import held_bytes, unique_bytes
from engine.group.settings import GroupSettings
from engine.history.reach import gaps, oldest_cut
from engine.index.versions import read_version
from engine.journal import room
from protocol.events import Consistency, CopyDeleted
from protocol.limits import BLOCK_BYTES
from protocol.positions import POSITION_MAX
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import GroupRig

pytestmark = pytest.mark.usefixtures("run_sizes")

BLOCKS = 24
KEEP_ALL = GroupSettings(journal_limit_bytes=POSITION_MAX, reserve_bytes=0)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GroupRig]:
    monkeypatch.setattr(room, "SEGMENT_BYTES", 64 << 10)
    monkeypatch.setattr(room, "SEGMENT_BYTES_MIN", 64 << 10)
    monkeypatch.setattr(copy_space, "SLICE_ROWS", 5)
    rig = GroupRig(tmp_path, settings=KEEP_ALL)
    rig.open()
    yield rig
    rig.drop()


def backup(rig: GroupRig) -> Copy:
    return take_backup(
        rig.group,
        volume=None,
        label="",
        cut=None,
        consistency=Consistency.CRASH,
        pinned=False,
        rng=rig.rng,
    )


def truncate(rig: GroupRig, volume: int) -> None:
    """All but the newest segment."""
    rig.sync()
    rig.write(volume, 0, b"z")  # its frame says that what came before is durable
    rig.sync()
    rig.checkpoint()
    rig.group.settings = replace(KEEP_ALL, window_s=0.0, window_bytes=0)
    rig.settle(5.0)


def stored(rig: GroupRig) -> int:
    """Versions with bytes of their own in the index."""
    with rig.group.store.read() as transaction:
        cursor, count = transaction.cursor("versions"), 0
        more = cursor.set_range(b"\0")
        while more:
            count += not read_version(bytes(cursor.key()), cursor.value()).zero
            more = cursor.next()
    return count


@pytest.mark.parametrize("seed", range(6))
def test_unique_is_what_a_deletion_gives_back(rig: GroupRig, seed: int) -> None:
    rng = random.Random(seed)
    volume = rig.create("root", BLOCKS)
    copies = []
    for _ in range(6):
        for _ in range(rng.randrange(1, 30)):
            rig.write(volume, rng.randrange(BLOCKS), bytes([rng.randrange(1, 255)]))
        copies.append(backup(rig))
    for _ in range(60):
        rig.write(volume, rng.randrange(BLOCKS), b"z")
    assert [sum(unique_bytes(rig.group, [copy])) for copy in copies] == [0] * 6, "all in the window"
    truncate(rig, volume)
    assert oldest_cut(rig.group, rig.group.volume("root")).position > copies[-1].position
    for copy in rng.sample(copies, 3):
        held = rig.read("root", copy.cut)
        blocks = [held[at : at + BLOCK_BYTES] for at in range(0, len(held), BLOCK_BYTES)]
        assert sum(held_bytes(rig.group, copy)) == BLOCK_BYTES * sum(any(block) for block in blocks)
        unique, before = sum(unique_bytes(rig.group, [copy])), stored(rig)
        rig.group.append_records([CopyDeleted(copy_id=copy.id)])
        rig.sync()
        rig.settle(5.0)
        assert (before - stored(rig)) * BLOCK_BYTES == unique


def test_any_moment_can_be_read_from_the_creation_on_while_nothing_is_truncated(rig: GroupRig) -> None:
    volume = rig.create("root", BLOCKS)
    created = rig.end
    rig.write(volume, 0, b"a")
    assert oldest_cut(rig.group, rig.group.volume("root")) == created
    assert rig.letters("root", created) == "." * BLOCKS
    assert gaps(rig.group) == []
