"""A journal writer on a real disk that does as a test says: syncs end when told, calls fail when told."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.journal.format import timeline_directory
from engine.journal.reader import JournalReader
from engine.journal.segments import SegmentMap
from engine.journal.writer import JournalWriter
from engine.ports.disk import Buffer, DiskFile, SyncDone
from engine.ports.durable import RealDisk, RealFile
from protocol.events import WRITE
from protocol.frames import NO_DIGEST, Frame, encode_frame
from protocol.limits import BLOCK_BYTES
from protocol.positions import POSITION_MAX
from tests.sim.world import SimClock, SimWorld

TIMELINE = 0x77
SEGMENT = 1 << 16
SMALLEST = SEGMENT // 4


class StubbornDisk(RealDisk):
    """The real disk, except that syncs end when the test says so, and calls fail as often as it says."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, None)
        self.free = 1 << 40
        self.made: list[str] = []
        self.syncs: list[tuple[list[str], list[str]]] = []
        self.waiting: list[Callable[[OSError | None], None]] = []
        self.fail_preallocate: list[int] = []
        self.fail_pwrite: list[int] = []
        self.sync_error: OSError | None = None

    def preallocate(self, path: str, size_bytes: int) -> RealFile:
        if self.fail_preallocate:
            raise OSError(self.fail_preallocate.pop(0), "as the test asked", path)
        if size_bytes > self.free:
            raise OSError(errno.ENOSPC, "no space", path)
        made = super().preallocate(path, size_bytes)
        self.made.append(path)
        return StubbornFile(self, made)

    def open(self, path: str) -> RealFile:
        return StubbornFile(self, super().open(path))

    def sync(self, files: Sequence[DiskFile], directories: Sequence[str]) -> None:
        self.syncs.append(([file.path for file in files], list(directories)))
        if self.sync_error is not None:
            raise self.sync_error
        super().sync(files, directories)

    def start_sync(self, files: Sequence[DiskFile], directories: Sequence[str], done: SyncDone) -> None:
        self.syncs.append(([file.path for file in files], list(directories)))
        self.waiting.append(done)

    def finish(self, error: OSError | None = None) -> None:
        """The sync under way ends."""
        self.waiting.pop(0)(error)

    def free_bytes(self) -> int:
        return self.free


class StubbornFile(RealFile):
    """A file whose writes fail when its disk says so."""

    def __init__(self, disk: StubbornDisk, file: RealFile) -> None:
        super().__init__(file.path, file.fileno())
        self._disk = disk

    def pwrite(self, data: Buffer, offset: int) -> None:
        if self._disk.fail_pwrite:
            super().pwrite(bytes(data)[: len(data) // 2], offset)
            raise OSError(self._disk.fail_pwrite.pop(0), "as the test asked", self.path)
        super().pwrite(data, offset)


class Bench:
    """A writer at the start of a timeline, and what it told."""

    def __init__(self, directory: Path, limit_bytes: int = POSITION_MAX) -> None:
        self.directory = directory
        self.world = SimWorld(1)
        self.disk = StubbornDisk(directory)
        self.segments = SegmentMap(self.disk)
        self.failures: list[OSError] = []
        self.durables = 0
        self.lacks: list[str] = []
        self.writer = JournalWriter(
            self.disk,
            SimClock(self.world),
            self.segments,
            limit_bytes=limit_bytes,
            reserve_bytes=1000,
            on_durable=self._on_durable,
            on_failed=self.failures.append,
            on_space=self.lacks.append,
        )
        self.digest = NO_DIGEST
        self.writer.start(TIMELINE, 0, 0)

    def _on_durable(self) -> None:
        self.durables += 1

    def frame(self, blocks: int = 1, timeline: int = TIMELINE) -> Frame:
        """The frame that comes next, not appended."""
        return encode_frame(
            timeline=timeline,
            position=self.writer.written,
            utc_ns=1,
            durable=self.writer.durable,
            previous_digest=self.digest,
            rows=[(WRITE, 1, 0, blocks)],
            payload=[bytes([1 + self.writer.written % 250]) * BLOCK_BYTES] * blocks,
            payload_bytes=blocks * BLOCK_BYTES,
        )

    def append(self, blocks: int = 1) -> Frame:
        frame = self.frame(blocks, self.writer.timeline)
        self.writer.append(frame)
        self.digest = frame.prefix.digest
        return frame

    def wait_for(self, position: int) -> list[OSError | None]:
        """Ask for durability; the list is filled with the answer."""
        answers: list[OSError | None] = []
        self.writer.when_durable(position, answers.append)
        return answers

    def on_disk(self) -> dict[int, bytes]:
        """Segment files of the timeline as anyone else reads them, by start."""
        folder = self.directory / timeline_directory(TIMELINE)
        return {int(path.stem, 16): path.read_bytes() for path in sorted(folder.glob("*.seg"))}

    def frames(self) -> int:
        """Frames that a reader finds up to the end."""
        reader = JournalReader(self.segments)
        return sum(1 for _ in reader.frames(TIMELINE, 0, self.writer.written, NO_DIGEST))
