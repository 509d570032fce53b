"""Reading a volume: bytes at any alignment, and the map of what holds data, against a plain byte array."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from engine.index import extents
from engine.index.deep_view import DEEP_FROM
from engine.index.versions import NUMBER_MASK, unpack_version_key
from engine.index.view import ReadBatch, VolumeView
from engine.integrity.faults import DamagedVersion
from protocol.errors import Corruption
from protocol.events import TRIM, WRITE, ZERO, Revert, Row
from protocol.limits import BLOCK_BYTES
from tests.unit.engine.group_rig import GroupRig, filled

pytestmark = pytest.mark.usefixtures("run_sizes")

BLOCKS = 400
SIZE = BLOCKS * BLOCK_BYTES


@dataclass
class Painted:
    """A volume written at random, its bytes, and the blocks that hold data."""

    rig: GroupRig
    seed: int
    content: bytearray = field(default_factory=lambda: bytearray(SIZE))
    data: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.volume = self.rig.create("root", BLOCKS)

    def paint(self, frames: int) -> None:
        """Frames of several rows: runs of blocks, zeroes of any length, discards."""
        for _ in range(frames):
            rows: list[Row] = []
            contents: list[bytes] = []
            for _ in range(self.rng.randrange(1, 5)):
                kind = self.rng.choice([WRITE, WRITE, WRITE, ZERO, TRIM])
                longest = 8 if kind == WRITE or self.rng.random() < 0.7 else BLOCKS
                first = self.rng.randrange(BLOCKS)
                count = min(self.rng.randrange(1, longest + 1), BLOCKS - first)
                rows.append((kind, self.volume, first, count))
                for block in range(first, first + count):
                    at = block * BLOCK_BYTES
                    if kind == WRITE:
                        contents.append(self.rng.randbytes(16))
                        self.content[at : at + BLOCK_BYTES] = filled(contents[-1])
                        self.data.add(block)
                    else:
                        self.content[at : at + BLOCK_BYTES] = bytes(BLOCK_BYTES)
                        self.data.discard(block)
            self.rig.append(rows, *contents)

    def view(self) -> VolumeView:
        return self.rig.live("root")


def painted(rig: GroupRig, seed: int, where: str) -> Painted:
    """Versions in the memtable, in the index, or in both and in a layer between."""
    made = Painted(rig, seed)
    made.paint(25)
    if where != "memtable":
        rig.checkpoint()
    if where == "both":
        made.paint(10)
        rig.indexer.hold = True
        rig.checkpoint()
        made.paint(10)
    if where == "after a restart":
        made.paint(5)
        rig.reopen()
    return made


PLACES = ["memtable", "index", "both", "after a restart"]


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_range_reads_like_the_byte_array(rig: GroupRig, seed: int, where: str) -> None:
    made = painted(rig, seed, where)
    view = made.view()
    with view.batch() as batch:
        assert view.read(batch, 0, SIZE) == made.content
        for _ in range(300):
            offset = made.rng.randrange(SIZE)
            length = min(made.rng.choice([1, 7, 512, 4095, 4096, 4097, 65536, 300_000]), SIZE - offset)
            assert view.read(batch, offset, length) == made.content[offset : offset + length]


def mapped(view: VolumeView, offset: int, length: int, *, only_one: bool = False) -> list[tuple[int, bool]]:
    """The whole map, asked for piece by piece as a host does; neighbours joined."""
    found: list[tuple[int, bool]] = []
    end = offset + length
    while offset < end:
        stretches = view.extents(offset, end - offset, only_one=only_one)
        assert stretches
        if only_one:
            stretches = stretches[:1]
        for size, data in stretches:
            assert size > 0
            offset += size
            if found and found[-1][1] == data:
                found[-1] = (found[-1][0] + size, data)
            else:
                found.append((size, data))
    assert offset == end
    return found


def expected_map(made: Painted, offset: int, length: int) -> list[tuple[int, bool]]:
    found: list[tuple[int, bool]] = []
    at = offset
    while at < offset + length:
        size = min(BLOCK_BYTES - at % BLOCK_BYTES, offset + length - at)
        data = at // BLOCK_BYTES in made.data
        if found and found[-1][1] == data:
            found[-1] = (found[-1][0] + size, data)
        else:
            found.append((size, data))
        at += size
    return found


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("only_one", [False, True])
@pytest.mark.parametrize("step", [1, 3, 512])
@pytest.mark.parametrize("probes", [1, 2048])
@pytest.mark.parametrize("work", [1, 2048])
def test_the_map_is_exact(
    rig: GroupRig,
    where: str,
    only_one: bool,
    step: int,
    probes: int,
    work: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With steps so small that every scan ends early, too."""
    for name in ("STEP_BLOCKS", "FIRST_STEP_BLOCKS"):
        monkeypatch.setattr(extents, name, step)
    for name in ("STEP_PROBES", "FIRST_STEP_PROBES"):
        monkeypatch.setattr(extents, name, probes)
    monkeypatch.setattr(extents, "WORK_MAX", work)
    made = painted(rig, 4, where)
    view = made.view()
    assert mapped(view, 0, SIZE, only_one=only_one) == expected_map(made, 0, SIZE)
    for _ in range(40):
        offset = made.rng.randrange(SIZE)
        length = made.rng.randrange(1, SIZE - offset + 1)
        found = mapped(view, offset, length, only_one=only_one)
        assert found == expected_map(made, offset, length), (offset, length)


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("only_one", [False, True])
def test_a_map_of_many_extents_is_scanned_in_bounded_steps(
    rig: GroupRig, only_one: bool, indexed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are and wherever, a scan looks up no more than it may, and comes to the end."""
    count = 20_000
    volume = rig.create("huge", 1 << 28)
    for at in range(0, count, 1000):
        rows: list[Row] = [(WRITE, volume, 2 * block, 1) for block in range(at, at + 1000)]
        rig.group.append(rows, [filled(b"x")] * 1000, 1000 * BLOCK_BYTES)
    if indexed:
        rig.checkpoint()
    view = rig.live("huge")
    looked_up: list[int] = []
    find = VolumeView.find

    def counted(self: VolumeView, batch: ReadBatch, block: int) -> object:
        looked_up.append(block)
        return find(self, batch, block)

    monkeypatch.setattr(VolumeView, "find", counted)
    offset = extents_found = most = 0
    while offset < 1 << 40:
        looked_up.clear()
        found = view.extents(offset, (1 << 40) - offset, only_one=only_one)
        most = max(most, len(looked_up))
        found = found[:1] if only_one else found
        assert len(found) <= 2 * (extents.WORK_MAX // extents.ROW_WORK + 2 * extents.STEP_BLOCKS)
        offset += sum(size for size, _ in found)
        extents_found += len(found)
        if only_one and extents_found > 500:
            break
    else:
        assert 2 * count <= extents_found <= 2 * count + 1000
    assert most <= (0 if indexed else extents.WORK_MAX // extents.LOOK_UP_WORK + 2 * extents.STEP_BLOCKS)


@pytest.mark.parametrize("indexed", [False, True])
def test_a_hole_is_one_step_whatever_its_size(rig: GroupRig, indexed: bool) -> None:
    """Of an empty pebibyte, and of one with a block at its end; in the memtable and in the index."""
    volume = rig.create("huge", 1 << 38)
    assert rig.live("huge").extents(0, 1 << 50) == [(1 << 50, False)]
    rig.write(volume, (1 << 38) - 2, b"z")
    rig.write(volume, 7, b"a")
    if indexed:
        rig.checkpoint()
    ends = [(7 * BLOCK_BYTES, False), (BLOCK_BYTES, True), ((1 << 50) - 10 * BLOCK_BYTES, False)]
    assert rig.live("huge").extents(0, 1 << 50) == [*ends, (BLOCK_BYTES, True), (BLOCK_BYTES, False)]


def test_a_run_of_blocks_is_one_read_of_the_file(rig: GroupRig, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = rig.create("root", BLOCKS)
    rig.write(volume, 10, *[bytes([65 + block]) for block in range(20)])
    rig.write(volume, 15, b"z")
    reads = []
    read_bytes = rig.group.segments.read_bytes

    def counted(lane: int, number: int, length: int) -> bytes:
        reads.append(length // BLOCK_BYTES)
        return read_bytes(lane, number, length)

    monkeypatch.setattr(rig.group.segments, "read_bytes", counted)
    assert rig.letters("root")[10:30] == "ABCDEzGHIJKLMNOPQRST"
    assert reads == [5, 1, 14]


def test_blocks_side_by_side_in_two_frames_are_not_one_run(rig: GroupRig) -> None:
    """Between them stands the second frame's prefix."""
    volume = rig.create("root", 8)
    rig.write(volume, 0, b"a")
    rig.write(volume, 1, b"b")
    rig.checkpoint()
    rig.write(volume, 2, b"c")
    assert rig.letters("root") == "abc....."


def test_a_cuts_view_never_changes(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a", b"b")
    view = rig.group.kept.view_at("root", rig.end)
    rig.write(volume, 0, b"z")
    rig.append([(TRIM, volume, 0, 4)])
    rig.checkpoint()
    rig.write(volume, 1, b"y")
    with view.batch() as batch:
        assert view.read(batch, 0, 2 * BLOCK_BYTES) == filled(b"a") + filled(b"b")


def test_damaged_bytes_are_an_error_that_names_the_block(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    frame = rig.write(volume, 0, b"a", b"b", b"c").prefix
    rig.checkpoint()
    path = rig.segment_files()[0]
    damaged = bytearray(path.read_bytes())
    damaged[frame.payload_at + BLOCK_BYTES + 5] ^= 1
    path.write_bytes(damaged)
    view = rig.live("root")
    with view.batch() as batch:
        assert view.read_block(batch, 0) == filled(b"a")
        for offset, length in ((0, 3 * BLOCK_BYTES), (BLOCK_BYTES, 512)):
            with pytest.raises(Corruption, match="block 1"):
                view.read(batch, offset, length)


def test_a_missing_segment_is_an_error(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    rig.checkpoint()
    rig.group.segments.close()
    rig.segment_files()[0].unlink()
    view = rig.live("root")
    with view.batch() as batch:
        with pytest.raises(Corruption, match="missing"):
            view.read_block(batch, 0)
        assert view.read_block(batch, 1) == bytes(BLOCK_BYTES)


def test_what_many_restores_took_back_may_be_damaged(rig: GroupRig) -> None:
    """What was written before each of them cannot be read, what is seen can."""
    volume = rig.create("root", 8)
    rig.write(volume, 0, b"a", b"b", b"c", b"d")
    start = rig.end.position
    for turn in range(DEEP_FROM + 2):
        before = rig.end
        rig.write(volume, turn % 4, b"x")
        taken_back = rig.end
        rig.group.append_records([Revert(volume=volume, cut=before)])
        rig.write(volume, 4, b"y")
    assert len(rig.live("root").intervals) >= DEEP_FROM
    rig.checkpoint()
    doomed = []
    with rig.group.store.read() as read:
        cursor = read.cursor("versions")
        more = cursor.set_range(b"\0")
        while more:
            _, _, block, inverted = unpack_version_key(cursor.key())
            if block < 4 and inverted ^ NUMBER_MASK >= start:
                doomed.append(bytes(cursor.key()))
            more = cursor.next()
    with rig.group.store.write() as write:
        for key in doomed:
            write.put("versions", key, b"\x06none")
    assert len(doomed) == DEEP_FROM + 2
    assert rig.letters("root") == "abcdy..."
    with pytest.raises(DamagedVersion):
        rig.letters("root", taken_back)
