"""From requests to frames: parts of blocks merged in order, zeroes of any alignment, frames within limits."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.index.view import VolumeView
from engine.journal import room
from engine.ports.disk import Buffer
from protocol.errors import NoSpace, Refused
from protocol.events import TRIM, WRITE, ZERO, Row
from protocol.frames import Frame, decode_rows
from protocol.limits import BLOCK_BYTES, FRAME_BYTES_MAX, FRAME_EVENTS_MAX, FRAME_PAYLOAD_BYTES_MAX
from site_primary.write_path import WriteBatch
from tests.unit.engine.group_rig import GroupRig, memory_directory

BLOCKS = 16
SIZE = BLOCKS * BLOCK_BYTES


class Host:
    """Requests to one volume as one batch, beside a byte array that they should leave."""

    def __init__(self, rig: GroupRig, blocks: int = BLOCKS) -> None:
        self.rig = rig
        self.volume = rig.create("root", blocks)
        self.content = bytearray(blocks * BLOCK_BYTES)
        self.frames: list[Frame] = []
        rig.group.listeners.frame.append(self.frames.append)
        self.batch = WriteBatch(rig.group, self.volume, blocks * BLOCK_BYTES, lambda: rig.live("root"))

    def write(self, offset: int, data: bytes) -> None:
        self.batch.write(offset, memoryview(data))
        self.content[offset : offset + len(data)] = data

    def fill(self, offset: int, length: int, letter: str) -> None:
        self.write(offset, letter.encode() * length)

    def zero(self, offset: int, length: int, *, trim: bool = False) -> None:
        self.batch.zero(offset, length, trim=trim)
        if trim:
            end = (offset + length) // BLOCK_BYTES * BLOCK_BYTES
            offset = -(-offset // BLOCK_BYTES) * BLOCK_BYTES
            length = max(0, end - offset)
        self.content[offset : offset + length] = bytes(length)

    def commit(self) -> list[list[tuple[object, ...]]]:
        """Rows of the frames that the batch became; the volume must read as the byte array."""
        self.batch.commit()
        assert self.batch.empty
        assert self.rig.read("root") == self.content
        frames, self.frames[:] = list(self.frames), []
        return [list(decode_rows(frame.prefix, frame.raw)) for frame in frames]


@pytest.fixture
def host(rig: GroupRig) -> Host:
    return Host(rig)


# What becomes of requests.


def test_one_batch_is_one_frame_with_a_row_a_request(host: Host) -> None:
    host.fill(0, 4096, "a")
    host.fill(20480, 8192, "b")
    host.zero(8192, 4096)
    host.fill(0, 4096, "c")
    volume = host.volume
    expected = [(WRITE, volume, 0, 1), (WRITE, volume, 5, 2), (ZERO, volume, 2, 1), (WRITE, volume, 0, 1)]
    assert host.commit() == [expected]


def test_nothing_is_committed_as_nothing(host: Host) -> None:
    assert host.batch.empty
    assert host.commit() == []


def test_part_of_a_block_is_merged_with_what_it_holds(host: Host) -> None:
    host.fill(0, 8192, "a")
    host.commit()
    host.fill(100, 200, "b")
    assert host.commit() == [[(WRITE, host.volume, 0, 1)]]


def test_parts_of_one_block_in_one_batch_see_each_other(host: Host) -> None:
    """The journal does not hold the first yet when the second is merged."""
    for sector, letter in ((3, "a"), (5, "b"), (3, "c"), (0, "d"), (7, "e")):
        host.fill(sector * 512, 512, letter)
    (rows,) = host.commit()
    assert rows == [(WRITE, host.volume, 0, 1)] * 5


def test_a_part_after_a_whole_block_of_the_same_batch(host: Host) -> None:
    host.fill(0, 4 * BLOCK_BYTES, "a")
    host.fill(BLOCK_BYTES + 10, 20, "b")
    host.fill(0, 4096, "c")
    host.fill(5, 5, "d")
    (rows,) = host.commit()
    assert len(rows) == 4


def test_a_write_over_several_blocks_with_ragged_edges(host: Host) -> None:
    host.fill(0, SIZE, "x")
    host.commit()
    host.fill(1000, 3 * BLOCK_BYTES, "a")
    volume = host.volume
    assert host.commit() == [[(WRITE, volume, 0, 1), (WRITE, volume, 1, 2), (WRITE, volume, 3, 1)]]


def test_a_part_after_zeroes_of_the_same_batch_reads_zeroes(host: Host) -> None:
    host.fill(0, SIZE, "x")
    host.commit()
    host.zero(0, SIZE)
    host.fill(100, 100, "a")
    host.zero(0, 2 * BLOCK_BYTES, trim=True)
    host.fill(200, 100, "b")
    host.commit()


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (100, 50),
        (0, 50),
        (4000, 96),
        (4000, 200),
        (100, 4096),
        (0, 4097),
        (4095, 8194),
        (1, 4095),
        (512, 3584),
    ],
)
def test_zeroes_of_any_alignment(host: Host, offset: int, length: int) -> None:
    host.fill(0, SIZE, "x")
    host.zero(offset, length)
    host.commit()


@pytest.mark.parametrize(
    ("offset", "length", "blocks"), [(100, 50, 0), (1, 8191, 1), (0, 8192, 2), (0, 4095, 0)]
)
def test_a_trim_leaves_partly_covered_blocks_as_they_are(
    host: Host, offset: int, length: int, blocks: int
) -> None:
    host.fill(0, SIZE, "x")
    host.commit()
    host.zero(offset, length, trim=True)
    frames = host.commit()
    assert sum(row[3] for rows in frames for row in rows if row[0] == TRIM) == blocks  # type: ignore[misc]


def test_a_discarded_petabyte_is_one_row(rig: GroupRig) -> None:
    volume = rig.create("huge", 1 << 38)
    batch = WriteBatch(rig.group, volume, 1 << 50, lambda: rig.live("huge"))
    batch.zero(4095, (1 << 50) - 4096, trim=True)
    batch.commit()
    assert rig.group.memtable.count == 1


# What can never become a row (C1).


@pytest.mark.parametrize("offset", [0, 1, 100, 4095, 4096, SIZE - 1, SIZE])
def test_c1_nothing_is_journaled_for_length_zero(host: Host, offset: int) -> None:
    host.fill(0, SIZE, "x")
    host.commit()
    host.write(offset, b"")
    host.zero(offset, 0)
    host.zero(offset, 0, trim=True)
    assert host.batch.empty
    assert host.commit() == []


OUTSIDE = [(SIZE, 1), (SIZE, BLOCK_BYTES), (SIZE - 1, 2), (0, SIZE + 1), (1 << 63, 512), ((1 << 64) - 1, 1)]


@pytest.mark.parametrize(
    ("offset", "length"), [*OUTSIDE, (-1, 1), (-BLOCK_BYTES, BLOCK_BYTES), (SIZE + 1, 0)]
)
def test_c1_nothing_outside_the_volume_gets_into_a_batch(host: Host, offset: int, length: int) -> None:
    for attempt in (
        lambda: host.batch.write(offset, memoryview(bytes(length))),
        lambda: host.batch.zero(offset, length, trim=False),
        lambda: host.batch.zero(offset, length, trim=True),
    ):
        if length <= 2 * SIZE:
            with pytest.raises(Refused):
                attempt()
    assert host.commit() == []


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["write", "zero", "trim"]),
            st.integers(-2, SIZE + 2) | st.integers(0, (1 << 64) - 1),
            st.sampled_from([0, 1, 511, 512, 4095, 4096, 4097, 9000, SIZE, SIZE + 1]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_c1_whatever_is_asked_for_every_row_is_whole_and_inside(batch: list[tuple[str, int, int]]) -> None:
    rig = GroupRig(memory_directory())
    rig.open()
    host = Host(rig)
    for kind, offset, length in batch:
        try:
            if kind == "write":
                host.batch.write(offset, memoryview(bytes(length)))
            else:
                host.batch.zero(offset, length, trim=kind == "trim")
        except Refused:
            assert not 0 <= offset <= offset + length <= SIZE
    host.batch.commit()
    for frame in host.frames:
        for row in decode_rows(frame.prefix, frame.raw):
            assert row[3] >= 1
            assert 0 <= row[2] < row[2] + row[3] <= BLOCKS
    rig.reopen()
    rig.drop()
    shutil.rmtree(rig.directory)


# Random batches.

offsets = st.builds(
    lambda block, shift: min(max(0, block * BLOCK_BYTES + shift), SIZE - 1),
    st.integers(0, BLOCKS - 1),
    st.sampled_from([0, 0, 1, -1, 512, 1000, 2048, 4095]),
)
requests = st.tuples(
    st.sampled_from(["write", "write", "write", "zero", "trim"]),
    offsets,
    st.integers(1, 1024) | st.sampled_from([4096, 4095, 4097, 8192, 12288, SIZE]),
)


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(requests, min_size=1, max_size=8), min_size=1, max_size=5))
def test_any_batches_leave_what_the_requests_said(batches: list[list[tuple[str, int, int]]]) -> None:
    rig = GroupRig(memory_directory())
    rig.open()
    host = Host(rig)
    rng = random.Random(1)
    for batch in batches:
        for kind, offset, length in batch:
            length = min(length, SIZE - offset)
            if kind == "write":
                host.write(offset, rng.randbytes(length))
            else:
                host.zero(offset, length, trim=kind == "trim")
        host.commit()
    rig.reopen()
    assert rig.read("root") == host.content
    rig.drop()
    shutil.rmtree(rig.directory)


# Limits.


@dataclass
class Recorder:
    """Stands where a group stands, to see frames larger than the small segments of these tests."""

    frames: list[tuple[list[Row], int]] = field(default_factory=list)
    refuse: list[Exception] = field(default_factory=list)

    def append(self, rows: list[Row], payload: list[Buffer], payload_bytes: int) -> None:
        if self.refuse:
            raise self.refuse.pop()
        assert payload_bytes == sum(map(len, payload))
        self.frames.append((rows, payload_bytes))


def recorded() -> tuple[Recorder, WriteBatch]:
    recorder = Recorder()

    def no_view() -> VolumeView:
        raise AssertionError("whole blocks need no merging")

    return recorder, WriteBatch(recorder, 7, 1 << 40, no_view)  # type: ignore[arg-type]


def test_a_large_write_becomes_frames_within_their_limit() -> None:
    recorder, batch = recorded()
    length = 32 << 20
    batch.write(0, memoryview(bytes(length)))
    batch.commit()
    assert sum(size for _, size in recorder.frames) == length
    assert max(size for _, size in recorder.frames) <= FRAME_PAYLOAD_BYTES_MAX < FRAME_BYTES_MAX
    blocks = [row for rows, _ in recorder.frames for row in rows]
    assert [row[2] for row in blocks] == [sum(row[3] for row in blocks[:at]) for at in range(len(blocks))]


def test_many_small_requests_become_frames_of_as_many_events_as_fit() -> None:
    recorder, batch = recorded()
    for at in range(FRAME_EVENTS_MAX + 5):
        batch.zero(at * 8192, 4096, trim=True)
    batch.commit()
    assert [len(rows) for rows, _ in recorder.frames] == [FRAME_EVENTS_MAX, 5]


def test_a_frame_full_of_payload_is_committed_before_the_next_block() -> None:
    recorder, batch = recorded()
    blocks = FRAME_PAYLOAD_BYTES_MAX // BLOCK_BYTES
    for at in range(blocks + 1):
        batch.write(at * BLOCK_BYTES, memoryview(bytes(BLOCK_BYTES)))
    batch.commit()
    assert [len(rows) for rows, _ in recorder.frames] == [blocks, 1]


def test_parts_of_blocks_at_a_frames_end_are_merged_right(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame fills up between two parts of one block: the second must see the first."""
    monkeypatch.setattr("site_primary.write_path.FRAME_PAYLOAD_BYTES_MAX", 3 * BLOCK_BYTES)
    monkeypatch.setattr("site_primary.write_path.FRAME_EVENTS_MAX", 4)
    host = Host(rig)
    rng = random.Random(3)
    for _ in range(200):
        offset = rng.randrange(SIZE - 1)
        host.write(offset, rng.randbytes(min(rng.choice([1, 512, 4096, 20_000]), SIZE - offset)))
        if rng.random() < 0.1:
            host.zero(offset, min(9000, SIZE - offset), trim=rng.random() < 0.5)
    frames = host.commit()
    assert len(frames) > 50
    assert all(sum(row[3] for row in rows if row[0] == WRITE) <= 3 for rows in frames)  # type: ignore[misc]


def test_a_commit_that_fails_leaves_the_batch_empty(rig: GroupRig) -> None:
    """The host was told that it failed: it must not come with the next one."""
    host = Host(rig)
    host.fill(0, 4096, "a")
    host.commit()
    append = rig.group.append

    def full(*_: object) -> None:
        raise NoSpace("no room")

    rig.group.append = full  # type: ignore[assignment,method-assign]
    before = bytes(host.content)
    host.fill(0, 100, "b")
    with pytest.raises(NoSpace):
        host.batch.commit()
    assert host.batch.empty
    rig.group.append = append  # type: ignore[method-assign]
    host.content[:] = before
    host.fill(200, 100, "c")
    host.commit()


def test_a_segment_that_fills_up_inside_a_batch_is_no_matter(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SEGMENT_BYTES", 1 << 16)
    monkeypatch.setattr(room, "SEGMENT_BYTES_MIN", 1 << 16)
    host = Host(rig)
    for turn in range(60):
        host.fill((turn % BLOCKS) * BLOCK_BYTES, 3000, chr(65 + turn % 26))
        host.commit()
    assert len(rig.segment_files()) > 3
