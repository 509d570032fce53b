"""Runs of blocks as one row: how a write is cut, what it costs, and that every block of it is found again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.index.indexed_history import CHECKPOINT_KEY, FORMAT, load_checkpoint
from engine.index.levels import blocks_at, level_and_first, pieces, run_blocks
from engine.index.runs import (
    exact_version,
    indexed_blocks,
    levels_of,
    place_of,
    row_holding,
    versions_in,
)
from engine.index.versions import VersionKind
from engine.integrity.faults import DamagedVersion, Fault
from protocol.errors import RemoteProtocolError
from protocol.events import ZERO
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from protocol.rows import pack_row
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import GroupRig, filled

MIB_BLOCKS = 256


def rows_of(rig: GroupRig) -> dict[bytes, bytes]:
    """Every row of `versions`."""
    found = {}
    with rig.group.store.read() as read:
        cursor = read.cursor("versions")
        while cursor.next():
            found[bytes(cursor.key())] = bytes(cursor.value())
    return found


def fill(count: int, seed: int = 0) -> list[bytes]:
    return [b"%d-%d" % (seed, at) for at in range(count)]


@given(first=st.integers(0, 2000) | st.integers(0, 1 << 51), count=st.integers(1, 1200))
def test_pieces_are_the_write_in_order(first: int, count: int) -> None:
    at = first
    for level, start, size in pieces(first, count):
        assert start == at
        assert level == 0 or (size == run_blocks(level) and start % size == 0)
        assert size > 0
        at += size
    assert at == first + count


@given(first=st.integers(0, 2000), count=st.integers(1, 2000))
def test_a_write_has_few_pieces(first: int, count: int) -> None:
    """At either end 3 blocks, 3 runs of 4 and 15 of 16 at the most; between them whole runs of 256."""
    versions = sum(1 if level else size for level, _, size in pieces(first, count))
    assert versions <= 42 + count // MIB_BLOCKS


def test_a_mebibyte_is_one_row(rig: GroupRig) -> None:
    volume = rig.create("root", 4 * MIB_BLOCKS)
    for at in range(4):
        rig.write(volume, at * MIB_BLOCKS, *fill(MIB_BLOCKS, at))
    rig.checkpoint()
    rows = rows_of(rig)
    assert len(rows) == 4
    assert {len(value) for value in rows.values()} == {1 + 4 * MIB_BLOCKS}
    with rig.group.store.read() as read:
        assert levels_of(read.cursor("versions"), 0, volume) == (0, 3)
    data = rig.read("root", rig.end)
    assert data == b"".join(map(filled, [each for at in range(4) for each in fill(MIB_BLOCKS, at)]))


@pytest.mark.parametrize("checkpoints", [(), (0,), (1,), (0, 1), (2,), (0, 1, 2)])
def test_what_is_written_over_a_run_is_newer_and_what_was_under_it_stays(
    rig: GroupRig, checkpoints: tuple[int, ...]
) -> None:
    """A block, a run, a block again: in the memtable, in the index, and with each step in another of both."""
    volume = rig.create("root", 2 * MIB_BLOCKS)
    content = [b"\0"] * 2 * MIB_BLOCKS
    cuts = []
    for step, (first, blocks) in enumerate(
        [(40, fill(3, 1)), (7, fill(2 * MIB_BLOCKS - 7, 2)), (39, fill(1, 3)), (41, fill(1, 4))]
    ):
        rig.write(volume, first, *blocks)
        content[first : first + len(blocks)] = blocks
        cuts.append((rig.end, list(content)))
        if step in checkpoints:
            rig.checkpoint()
    rig.append([(ZERO, volume, 32, 16), (ZERO, volume, 100, 5)])
    content[32:48] = [b"\0"] * 16
    content[100:105] = [b"\0"] * 5
    cuts.append((rig.end, list(content)))
    for _ in range(2):
        for cut, then in cuts:
            assert rig.read("root", cut) == b"".join(map(filled, then)), cut
        rig.checkpoint()
    rig.reopen()
    for cut, then in cuts:
        assert rig.read("root", cut) == b"".join(map(filled, then)), cut


def test_every_version_in_a_run_is_found_by_its_number(rig: GroupRig) -> None:
    volume = rig.create("root", MIB_BLOCKS)
    rig.write(volume, 0, *fill(20))
    rig.append([(ZERO, volume, 0, 16)])
    rig.checkpoint()
    with rig.group.store.read() as read:
        versions = [each for key, value in rows_of(rig).items() for each in versions_in(key, value)]
        assert len(versions) == 20 + 16
        for at, each in enumerate(sorted(versions, key=lambda each: each.number)):
            block = at if at < 20 else None
            for asked in [block] if block is not None else range(16):
                assert exact_version(read, 0, volume, asked, each.number) is not None
            assert exact_version(read, 0, volume, 30, each.number) is None
            assert exact_version(read, 0, volume, 3, each.number + 1) is None
        assert indexed_blocks(read.cursor("versions"), 0, volume, 3, 18) == list(range(3, 18))
        assert indexed_blocks(read.cursor("versions"), 0, volume, 20, 400) == []


def test_a_damaged_row_of_a_run_is_named_by_its_blocks(rig: GroupRig) -> None:
    volume = rig.create("root", MIB_BLOCKS)
    rig.write(volume, 16, *fill(16))
    rig.checkpoint()
    ((key, value),) = rows_of(rig).items()
    assert (level_and_first(int.from_bytes(key[12:20]))) == (2, 16)
    assert value[0] == VersionKind.RUN
    with pytest.raises(DamagedVersion) as failed:
        versions_in(key, value[:-1])
    assert failed.value.damage.fault is Fault.ROW
    assert failed.value.damage.blocks == "blocks 16 to 31"
    unknown = key[:12] + b"\4" + key[13:]
    assert list(blocks_at(int.from_bytes(unknown[12:20]))) == []
    with pytest.raises(DamagedVersion):
        versions_in(unknown, value)


@pytest.mark.parametrize("kind", range(1, 7))
def test_a_damaged_row_hides_what_is_older_and_not_what_is_newer(rig: GroupRig, kind: int) -> None:
    """Of a block that single rows and runs say something of, the newest counts, whichever is damaged: by its
    kind, or by its length."""
    volume = rig.create("root", MIB_BLOCKS)
    rig.write(volume, 0, *[b"a"] * 16)
    rig.write(volume, 5, b"b")
    over = rig.end
    rig.append([(ZERO, volume, 0, 16)])
    rig.checkpoint()
    for key, value in rows_of(rig).items():
        _, _, first, blocks, number = place_of(key)
        damaged = bytes((kind,)) + value[1:] if kind != value[0] else value[:-1]
        with rig.group.store.write() as write:
            write.put("versions", key, damaged)
        shown, before = "." * 16, "aaaaabaaaaaaaaaa"
        if number >= over.position:
            shown = "?" * 16
        elif blocks > 1:
            before = "?????b??????????"
        else:
            before = "aaaaa?aaaaaaaaaa"
        assert (_shown(rig, rig.end), _shown(rig, over)) == (shown, before), (kind, first, blocks)
        # Whoever repairs it finds the row that it was, by any of its blocks.
        with rig.group.store.read() as read:
            for block in range(first, first + blocks):
                numbers = {number, number + (block - first) * BLOCK_BYTES}
                holding = [row_holding(read, 0, volume, block, each) for each in numbers]
                assert (key, damaged) in holding
        with rig.group.store.write() as write:
            write.put("versions", key, value)
    assert (_shown(rig, rig.end), _shown(rig, over)) == ("." * 16, "aaaaabaaaaaaaaaa")


def _shown(rig: GroupRig, cut: Cut) -> str:
    """The first 16 blocks at a cut, each by itself; `?` where it is damaged."""
    view, found = rig.group.kept.view_at("root", cut), ""
    with view.batch() as batch:
        for block in range(16):
            try:
                data = view.read_block(batch, block)
            except DamagedVersion:
                found += "?"
            else:
                found += chr(data[0]) if data[0] else "."
    return found


def test_an_index_of_a_later_format_is_not_taken_for_one_without_blocks(rig: GroupRig) -> None:
    volume = rig.create("root", 8)
    rig.write(volume, 0, b"a")
    rig.checkpoint()
    end = rig.end
    with rig.group.store.read() as read:
        assert load_checkpoint(read) == end
    for row, refused in (
        ((end.timeline, end.position), False),
        ((end.timeline, end.position, FORMAT), False),
        ((end.timeline, end.position, FORMAT + 1), True),
        ((end.timeline, end.position, FORMAT, 0), True),
    ):
        with rig.group.store.write() as write:
            write.put("meta", CHECKPOINT_KEY, pack_row(row))
        with rig.group.store.read() as read:
            if refused:
                with pytest.raises(RemoteProtocolError):
                    load_checkpoint(read)
            else:
                assert load_checkpoint(read) == end


def test_a_truncation_takes_runs_apart(rig: GroupRig, tiny_segments: None) -> None:
    """What stays of a run, when other blocks of it go, is readable as it was; nothing is left of its row."""
    volume = rig.create("root", 64)
    rig.write(volume, 0, *fill(64, 1))
    take_backup(rig.group, volume=None, label="before", cut=None, pinned=False, rng=rig.rng)
    kept = rig.group.copies.find(rig.group.spans(), "before", "g").cut
    rig.write(volume, 10, *fill(20, 2))
    rig.write(volume, 0, *fill(48, 3))
    for at in range(8):
        rig.write(volume, at, *fill(4, 4 + at))
    rig.sync()
    rig.write(volume, 63, b"says that the others are durable")
    now = rig.end
    rig.checkpoint()
    assert VersionKind.RUN in {value[0] for value in rows_of(rig).values()}
    before = {cut: rig.read("root", cut) for cut in (kept, now)}
    rig.group.settings = replace(rig.group.settings, window_bytes=0)
    rig.settle(10.0)
    # All of the first write is stored, as the backup sees it.
    rows = [each for key, value in rows_of(rig).items() for each in versions_in(key, value)]
    assert sum(bool(each.tail) for each in rows) >= 64
    assert len({value[0] for value in rows_of(rig).values()} - {VersionKind.STORED}) <= 1
    for cut, data in before.items():
        assert rig.read("root", cut) == data
    rig.reopen()
    for cut, data in before.items():
        assert rig.read("root", cut) == data
