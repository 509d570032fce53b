"""Where a journal ends after a crash, and whether that end is a torn tail or damage (invariant 4)."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.journal.reader import JournalReader
from engine.journal.recovery import WINDOW_BYTES, JournalEnd, cut_tail, walk_to_end
from engine.journal.segments import SegmentMap
from engine.ports.durable import RealDisk
from protocol.errors import Corruption
from protocol.events import WRITE, ZERO
from protocol.frames import NO_DIGEST, Frame, encode_frame
from protocol.limits import BLOCK_BYTES, FRAME_BYTES_MAX, SEGMENT_BYTES, SEGMENT_FILE_BYTES_MAX

TIMELINE = 0xABCD
DIRECTORY = f"journal/{TIMELINE:016x}"
TAIL = 300  # zeroes behind the frames, as in a preallocated segment


class Journal:
    """Frames laid into segment files by hand, so that a test decides every byte."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = RealDisk(root, None)
        self.disk.make_directory(DIRECTORY)
        self.frames: list[Frame] = []
        self.segments: SegmentMap | None = None

    def frame(self, *, durable: int = 0, utc_ns: int = 0, blocks: int = 0) -> Frame:
        """The next frame."""
        last = self.frames[-1].prefix if self.frames else None
        rows = [(WRITE, 1, 0, blocks)] if blocks else [(ZERO, 1, 0, 9)]
        frame = encode_frame(
            timeline=TIMELINE,
            position=last.end if last else 0,
            utc_ns=utc_ns or 1000 + len(self.frames),
            durable=durable,
            previous_digest=last.digest if last else NO_DIGEST,
            rows=rows,
            payload=[bytes([65 + len(self.frames)]) * BLOCK_BYTES] * blocks,
            payload_bytes=blocks * BLOCK_BYTES,
        )
        self.frames.append(frame)
        return frame

    def path(self, start: int) -> Path:
        """A segment's file."""
        return self.root / DIRECTORY / f"{start:016x}.seg"

    def store(self, start: int, content: bytes) -> None:
        """A segment with this content."""
        self.path(start).write_bytes(content)

    def lay(self, frames: list[Frame], tail: int = TAIL) -> bytes:
        """A segment that holds these frames and zeroes behind them."""
        content = b"".join(bytes(frame.raw) for frame in frames) + bytes(tail)
        self.store(frames[0].prefix.position, content)
        return content

    def walk(
        self, *, promised: int = 0, start: int = 0, digest: bytes = NO_DIGEST, own: bool = True
    ) -> JournalEnd:
        """Walk what is on disk now; `seen` are the frames given."""
        if self.segments is not None:
            self.segments.close()
        self.segments = SegmentMap(self.disk)
        self.segments.load()
        self.seen: list[int] = []
        return walk_to_end(
            JournalReader(self.segments),
            self.segments,
            timeline=TIMELINE,
            start=start,
            digest=digest,
            promised=promised,
            own=own,
            on_frame=lambda frame: self.seen.append(frame.prefix.position),
        )

    def cut(self, end: int) -> None:
        """What recovery does after a walk."""
        assert self.segments is not None
        cut_tail(self.disk, self.segments, TIMELINE, 0, end)

    def contents(self) -> dict[str, bytes]:
        """Every segment's bytes by name."""
        return {path.name: path.read_bytes() for path in sorted((self.root / DIRECTORY).iterdir())}


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    made = Journal(directory)
    yield made
    if made.segments is not None:
        made.segments.close()


def three_frames(journal: Journal) -> tuple[list[Frame], bytes]:
    """Two frames and a last one with a block in it, in one segment."""
    frames = [journal.frame(), journal.frame(blocks=1), journal.frame(blocks=1)]
    return frames, journal.lay(frames)


def assert_ends_before_the_last(journal: Journal, end: JournalEnd) -> None:
    before, last = journal.frames[-2].prefix, journal.frames[-1].prefix
    assert (end.position, end.digest, end.utc_ns) == (last.position, before.digest, before.utc_ns)
    assert journal.seen == [frame.prefix.position for frame in journal.frames[:-1]]


def test_a_whole_journal_ends_where_its_frames_do(journal: Journal) -> None:
    frames, _ = three_frames(journal)
    end = journal.walk()
    last = frames[-1].prefix
    assert end == JournalEnd(
        position=last.end, digest=last.digest, utc_ns=last.utc_ns, torn_bytes=0, reason="no frame magic"
    )
    assert journal.seen == [frame.prefix.position for frame in frames]


def test_a_file_cut_at_every_byte_of_its_last_frame_ends_at_the_frame_before(journal: Journal) -> None:
    frames, content = three_frames(journal)
    start = frames[-1].prefix.position
    for length in range(start, frames[-1].prefix.end):
        journal.store(0, content[:length])
        end = journal.walk()
        assert_ends_before_the_last(journal, end)
        assert end.torn_bytes <= length - start


def test_a_last_frame_torn_at_every_byte_ends_at_the_frame_before(journal: Journal) -> None:
    """After power loss the file keeps its length and the rest reads as zeroes."""
    frames, content = three_frames(journal)
    start = frames[-1].prefix.position
    for length in range(start, frames[-1].prefix.end):
        torn = content[:length] + bytes(len(content) - length)
        journal.store(0, torn)
        end = journal.walk()
        assert_ends_before_the_last(journal, end)
        assert end.torn_bytes == len(torn[start:].rstrip(b"\0"))
        journal.cut(end.position)
        assert journal.contents() == {journal.path(0).name: content[:start]}


def test_every_byte_of_the_last_frame_flipped_ends_at_the_frame_before(journal: Journal) -> None:
    """Not one of them may pass for a promise of the frame itself that it is durable."""
    frames, content = three_frames(journal)
    for at in range(frames[-1].prefix.position, frames[-1].prefix.end):
        for mask in (0x01, 0x80, 0xFF) if at < frames[-1].prefix.payload_at else (0xFF,):
            damaged = bytearray(content)
            damaged[at] ^= mask
            journal.store(0, bytes(damaged))
            assert_ends_before_the_last(journal, journal.walk())


def test_every_byte_of_a_frame_that_a_later_one_calls_durable_is_corruption(journal: Journal) -> None:
    frames = [journal.frame(), journal.frame()]
    frames.append(journal.frame(durable=frames[1].prefix.end))
    content = journal.lay(frames)
    bad = frames[1].prefix
    for at in range(bad.position, bad.end):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        journal.store(0, bytes(damaged))
        with pytest.raises(Corruption) as caught:
            journal.walk()
        assert caught.value.position == f"{TIMELINE:016x}:{bad.position}"
        assert str(frames[2].prefix.position) in caught.value.message
        assert caught.value.subject == f"{DIRECTORY}/{0:016x}.seg"
        assert journal.contents() == {journal.path(0).name: bytes(damaged)}


def test_a_later_frame_that_only_calls_what_came_before_durable_is_torn_too(journal: Journal) -> None:
    """Both were in flight when the power went: the disk kept the later one, which promises nothing here."""
    frames = [journal.frame(), journal.frame()]
    frames.append(journal.frame(durable=frames[1].prefix.position))
    content = bytearray(journal.lay(frames))
    content[frames[1].prefix.position + 80] ^= 1
    journal.store(0, bytes(content))
    end = journal.walk()
    assert end.position == frames[1].prefix.position
    assert end.torn_bytes == len(bytes(content[end.position :]).rstrip(b"\0"))
    journal.cut(end.position)
    assert journal.contents()[journal.path(0).name] == bytes(content[: end.position])
    assert journal.walk().torn_bytes == 0


def test_what_the_writer_called_durable_binds_no_site_that_follows(journal: Journal) -> None:
    """It holds the writer's frames: at its own power loss an earlier one may be gone and a later one
    there."""
    frames = [journal.frame(), journal.frame()]
    frames.append(journal.frame(durable=frames[1].prefix.end))
    content = bytearray(journal.lay(frames))
    content[frames[1].prefix.position + 80] ^= 1
    journal.store(0, bytes(content))
    assert journal.walk(own=False).position == frames[1].prefix.position


def test_damage_below_what_is_promised_from_outside_is_corruption(journal: Journal) -> None:
    """A checkpoint, a fork or a peer knows more than the journal's own tail."""
    frames, content = three_frames(journal)
    last = frames[-1].prefix
    journal.store(0, content[: last.end - 1])
    with pytest.raises(Corruption) as caught:
        journal.walk(promised=last.position + 1)
    assert caught.value.position.endswith(f":{last.position}")
    assert "nothing was cut" in caught.value.next_step
    assert_ends_before_the_last(journal, journal.walk(promised=last.position))


def test_damage_in_one_segment_is_told_by_a_promise_in_the_next(journal: Journal) -> None:
    frames = [journal.frame(), journal.frame()]
    content = bytearray(journal.lay(frames, tail=0))
    later = journal.frame(durable=frames[-1].prefix.end)
    journal.lay([later])
    content[frames[1].prefix.position] ^= 1
    journal.store(0, bytes(content))
    with pytest.raises(Corruption) as caught:
        journal.walk()
    assert caught.value.position.endswith(f":{frames[1].prefix.position}")


def test_a_missing_segment_below_a_promise_is_corruption(journal: Journal) -> None:
    first = journal.frame()
    journal.lay([first], tail=0)
    second = journal.frame()
    journal.lay([second], tail=0)
    journal.lay([journal.frame(durable=second.prefix.end)])
    journal.path(second.prefix.position).unlink()
    with pytest.raises(Corruption):
        journal.walk()


def test_segments_past_a_torn_end_are_removed(journal: Journal) -> None:
    """Nobody was promised either; what follows a hole cannot be reached any more."""
    frames = [journal.frame(), journal.frame()]
    journal.lay(frames, tail=0)
    journal.lay([journal.frame()])
    journal.store(0, bytes(frames[0].raw) + bytes(frames[1].prefix.frame_bytes))
    end = journal.walk()
    assert end.position == frames[1].prefix.position
    assert end.torn_bytes == len(bytes(journal.frames[2].raw).rstrip(b"\0"))
    journal.cut(end.position)
    assert journal.contents() == {journal.path(0).name: bytes(frames[0].raw)}


def test_several_segments_are_walked_as_one(journal: Journal) -> None:
    for _ in range(4):
        journal.lay([journal.frame(), journal.frame(blocks=2)], tail=0)
    end = journal.walk()
    assert end.position == journal.frames[-1].prefix.end
    assert len(journal.seen) == 8
    assert journal.walk(start=journal.frames[2].prefix.end, digest=journal.frames[2].prefix.digest) == end
    assert len(journal.seen) == 5


def test_a_frame_whose_time_goes_back_does_not_continue(journal: Journal) -> None:
    journal.lay([journal.frame(utc_ns=2000), journal.frame(utc_ns=1999)])
    end = journal.walk()
    assert end.position == journal.frames[1].prefix.position
    assert "time" in end.reason


Forger = Callable[[Journal], bytes]


def _another_timeline(journal: Journal) -> bytes:
    raw = bytearray(journal.frames[-1].raw)
    raw[24:32] = (TIMELINE + 1).to_bytes(8, "big")
    return bytes(raw)


def _another_place(journal: Journal) -> bytes:
    raw = bytearray(journal.frames[-1].raw)
    raw[16:24] = (journal.frames[-1].prefix.position + 1).to_bytes(8, "big")
    return bytes(raw)


def _another_history(journal: Journal) -> bytes:
    """A whole frame, right in itself, that continues another digest: as an old data directory put back
    has."""
    frame = encode_frame(
        timeline=TIMELINE,
        position=journal.frames[-1].prefix.position,
        utc_ns=9999,
        durable=0,
        previous_digest=bytes(range(16)),
        rows=[(ZERO, 1, 0, 9)],
        payload=[],
        payload_bytes=0,
    )
    return bytes(frame.raw)


def _the_frame_before(journal: Journal) -> bytes:
    return bytes(journal.frames[-2].raw)


@pytest.mark.parametrize(
    "forge",
    [_another_timeline, _another_place, _another_history, _the_frame_before],
    ids=lambda f: f.__name__,
)
def test_a_forged_last_frame_is_no_end(journal: Journal, forge: Forger) -> None:
    frames = [journal.frame(), journal.frame(), journal.frame()]
    kept = b"".join(bytes(frame.raw) for frame in frames[:-1])
    journal.store(0, kept + forge(journal) + bytes(TAIL))
    assert_ends_before_the_last(journal, journal.walk())


def test_data_that_looks_like_a_frame_is_no_witness(journal: Journal) -> None:
    """A host may store a journal in its volume: the bytes of a frame in a payload promise nothing, because no
    frame of this timeline can stand there."""
    first = journal.frame()
    inner = bytearray(BLOCK_BYTES)
    inner[: len(first.raw)] = first.raw
    second = encode_frame(
        timeline=TIMELINE,
        position=first.prefix.end,
        utc_ns=2000,
        durable=0,
        previous_digest=first.prefix.digest,
        rows=[(WRITE, 1, 0, 1)],
        payload=[inner],
        payload_bytes=BLOCK_BYTES,
    )
    damaged = bytearray(second.raw)
    damaged[-1] ^= 1
    journal.store(0, bytes(first.raw) + damaged)
    assert journal.walk().position == first.prefix.end


def test_an_empty_segment_ends_at_its_start(journal: Journal) -> None:
    journal.store(0, bytes(TAIL))
    end = journal.walk()
    assert (end.position, end.digest, end.utc_ns, end.torn_bytes) == (0, NO_DIGEST, 0, 0)


REACH = WINDOW_BYTES - FRAME_BYTES_MAX


@pytest.mark.parametrize("edge", [0, REACH, WINDOW_BYTES, WINDOW_BYTES + REACH, 3 * WINDOW_BYTES])
@pytest.mark.parametrize("shift", [-80, -73, -3, -2, -1, 0, 1, 4000])
def test_a_promise_is_found_wherever_windows_end(journal: Journal, edge: int, shift: int) -> None:
    """Also one whose magic stands before an edge, in part or whole, and one that begins nowhere near."""
    first = journal.frame()
    bad = first.prefix.end
    position = max(bad + 1, bad + edge + shift)
    promise = encode_frame(
        timeline=TIMELINE,
        position=position,
        utc_ns=5000,
        durable=bad + 1,
        previous_digest=bytes(16),
        rows=[(WRITE, 1, 0, 2)],
        payload=[b"p" * BLOCK_BYTES * 2],
        payload_bytes=BLOCK_BYTES * 2,
    )
    content = bytearray(position + 3 * BLOCK_BYTES)
    content[: len(first.raw)] = first.raw
    content[position : position + len(promise.raw)] = promise.raw
    journal.store(0, bytes(content))
    with pytest.raises(Corruption, match=f"a frame at {position} says it is durable"):
        journal.walk()
    # With a byte of it damaged it promises nothing, and the torn tail reaches to its last byte.
    content[position + len(promise.raw) - 1] ^= 0xFF
    journal.store(0, bytes(content))
    assert journal.walk().torn_bytes == len(bytes(content[bad:]).rstrip(b"\0"))


def test_a_segment_is_looked_through_in_windows(journal: Journal) -> None:
    journal.lay([journal.frame(), journal.frame()])
    os.truncate(journal.path(0), SEGMENT_BYTES)
    tracemalloc.start()
    try:
        assert journal.walk().torn_bytes == 0
        assert tracemalloc.get_traced_memory()[1] < 3 * WINDOW_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("where", [0, 1])
def test_a_file_too_large_for_a_segment_is_damage(journal: Journal, where: int) -> None:
    journal.lay([journal.frame(), journal.frame()], tail=0)
    journal.lay([journal.frame()])
    path = sorted((journal.root / DIRECTORY).iterdir())[where]
    os.truncate(path, SEGMENT_FILE_BYTES_MAX)
    assert journal.walk().position == journal.frames[-1].prefix.end
    os.truncate(path, 1 << 36)
    with pytest.raises(Corruption, match=f"{path.name} has {1 << 36} bytes") as caught:
        journal.walk()
    assert caught.value.subject == f"{DIRECTORY}/{path.name}"
    assert caught.value.next_step
    assert journal.seen == []
