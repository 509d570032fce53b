"""A group on a real disk and in a real LMDB, opened and dropped as often as a test likes.

Time is the simulator's, so that nothing happens behind a test's back; checkpoints run in this process, with
files of their own as the indexer has them. `drop` is what kill -9 does: nothing is synced or finished.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine.group.group import Group
from engine.group.recovery import Recovered, recover_group
from engine.group.settings import GroupSettings
from engine.group.site_state import SITE_TABLES, GroupRow, Role, SiteState
from engine.index.checkpoint import CheckpointPlan
from engine.index.index_file import open_index
from engine.index.indexer import HANDLERS, REQUEST_BYTES_MAX
from engine.index.requests import IndexerDone, IndexRequest, encode_request
from engine.index.view import VolumeView
from engine.journal.reader import BadFrame
from engine.journal.segments import SegmentMap
from engine.ports.disk import Disk
from engine.ports.durable import RealDisk
from engine.ports.lmdb_store import LmdbStore
from engine.ports.store import Store
from protocol.errors import FarshoreError
from protocol.events import WRITE, Row, VolumeCreated
from protocol.frames import Frame
from protocol.limits import BLOCK_BYTES
from protocol.positions import POSITION_MAX, Cut
from protocol.rows import unpack_row
from tests.sim.world import SimClock, SimWorld

GROUP_ID = "00112233445566aa"
SETTINGS = GroupSettings(journal_limit_bytes=POSITION_MAX, reserve_bytes=0)


def memory_directory() -> Path:
    """A new directory, in memory where there is such a file system: tests open groups thousands of times.
    Whoever asks removes it."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="farshore-", dir=parent))


class DirectIndexer:
    """Carries plans out at once. With `hold` the answers wait for `answer`, as those of a slow child would;
    `failures` are answered first."""

    def __init__(self, directory: Path, store: Store) -> None:
        self.hold = False
        self.failures: list[Exception] = []
        self.requests: list[IndexRequest] = []
        self._directory = directory
        self._store = store
        self._waiting: list[partial[None]] = []

    def start(self, request: IndexRequest, done: IndexerDone) -> None:
        """See `engine.index.requests.Indexer`."""
        self.requests.append(request)
        failure, figures = (self.failures.pop(0), ()) if self.failures else self._run(request)
        answer = partial(done, failure, figures)
        if self.hold:
            self._waiting.append(answer)
        else:
            answer()

    def answer(self) -> None:
        """Give the answers held back."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each()

    @property
    def plans(self) -> list[CheckpointPlan]:
        """The checkpoints asked for."""
        return [request for request in self.requests if isinstance(request, CheckpointPlan)]

    def _run(self, request: IndexRequest) -> tuple[Exception | None, tuple[int, ...]]:
        segments = SegmentMap(RealDisk(self._directory, None))
        kind, *fields = unpack_row(encode_request(request), REQUEST_BYTES_MAX)
        try:
            return None, HANDLERS[kind](self._store, segments, tuple(fields))
        except (FarshoreError, BadFrame, OSError) as error:
            return error, ()
        finally:
            segments.close()


class GroupRig:
    """One group at one site; `group` is there between `open` and `drop`."""

    group: Group
    indexer: DirectIndexer

    def __init__(
        self,
        directory: Path,
        *,
        site: str = "lon",
        seed: int = 1,
        settings: GroupSettings = SETTINGS,
        world: SimWorld | None = None,
        role: Role = Role.PRIMARY,
    ) -> None:
        self.directory = directory
        self.role = role
        self.site = site
        self.settings = settings
        self.world = world or SimWorld(seed)
        self.clock = SimClock(self.world)
        self.rng = random.Random(seed)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._stores: list[LmdbStore] = []

    def disk(self) -> Disk:
        """The disk that the next `open` uses."""
        return RealDisk(self.directory / "g", None)

    def open(self) -> Recovered:
        """Open the group as a starting daemon does."""
        (self.directory / "g").mkdir(parents=True, exist_ok=True)
        self.clock = SimClock(self.world)
        state_store = LmdbStore(self.directory / "state.mdb", 1 << 30, SITE_TABLES)
        store = open_index(self.directory / "g")
        self._stores = [state_store, store]
        state = SiteState(state_store)
        if not state.groups():
            state.put_group(GroupRow(name="g", group_id=GROUP_ID, role=self.role, head=0, created_utc_ns=1))
        self.indexer = DirectIndexer(self.directory / "g", store)
        self.group = Group(
            name="g",
            site=self.site,
            disk=self.disk(),
            clock=self.clock,
            store=store,
            indexer=self.indexer,
            state=state,
            rng=self.rng,
            settings=self.settings,
            emit=lambda kind, **fields: self.events.append((kind, fields)),
        )
        try:
            return recover_group(self.group)
        except FarshoreError:
            self.drop()
            raise

    def drop(self) -> None:
        """End the process at once."""
        self.clock.stop()
        self.group.segments.close()
        for store in self._stores:
            store.close()
        self._stores = []

    def reopen(self) -> Recovered:
        """`drop` and `open`."""
        self.drop()
        return self.open()

    def copy_to(self, directory: Path) -> GroupRig:
        """The same files in another directory, as a rig that is not open. This one must not be open
        either."""
        shutil.copytree(self.directory, directory)
        return GroupRig(directory, site=self.site, settings=self.settings, seed=self.rng.getrandbits(32))

    # What tests do most.

    def settle(self, seconds: float = 1.0) -> None:
        """Let timers of the next seconds run."""
        self.world.run_for(seconds)

    def sync(self) -> None:
        """Make everything written durable."""
        self.group.when_durable(_raise)

    def checkpoint(self) -> None:
        """One checkpoint of everything written."""
        self.group.checkpoints.begin()

    def create(self, name: str, blocks: int = 64) -> int:
        """A new volume; its id."""
        self.group.begin_writing()
        self.group.append_records([VolumeCreated(name=name, size_bytes=blocks * BLOCK_BYTES)])
        return self.group.volume(name).id

    def write(self, volume: int, block: int, *contents: bytes) -> Frame:
        """Neighbouring blocks from `block` on, each filled with the bytes given, as one frame."""
        payload = [filled(content) for content in contents]
        row: Row = (WRITE, volume, block, len(payload))
        return self.group.append([row], payload, len(payload) * BLOCK_BYTES)

    def append(self, rows: Sequence[Row], *contents: bytes) -> Frame:
        """One frame of rows of any kind."""
        payload = [filled(content) for content in contents]
        return self.group.append(rows, payload, len(payload) * BLOCK_BYTES)

    def live(self, name: str) -> VolumeView:
        """The volume as it is."""
        return self.group.live_view(self.group.volume(name))

    def read(self, name: str, cut: Cut | None = None) -> bytes:
        """The whole volume, live or at a cut."""
        view = self.live(name) if cut is None else self.group.kept.view_at(name, cut)
        with view.batch() as batch:
            return view.read(batch, 0, view.size_bytes)

    def letters(self, name: str, cut: Cut | None = None) -> str:
        """The first byte of each block as text, `.` for zeroes: for volumes written by `write`."""
        data = self.read(name, cut)
        blocks = [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]
        for block in blocks:
            assert block.count(block[0]) == BLOCK_BYTES, "a block mixes contents"
        return "".join(chr(block[0]) if block[0] else "." for block in blocks)

    @property
    def end(self) -> Cut:
        """Head and written position."""
        return self.group.end

    def files(self) -> dict[str, bytes]:
        """Every journal file's bytes, by path; directories as empty ones ending in a slash."""
        journal = self.directory / "g" / "journal"
        return {
            f"{path.relative_to(journal)}/" if path.is_dir() else str(path.relative_to(journal)): b""
            if path.is_dir()
            else path.read_bytes()
            for path in sorted(journal.rglob("*"))
        }

    def segment_files(self) -> list[Path]:
        """The segments' files, in order of position."""
        return sorted((self.directory / "g" / "journal").glob("*/*.seg"), key=lambda path: (path.name, path))


def follow(source: GroupRig, target: GroupRig, frames: int = 1 << 30, *, history: bool = False) -> int:
    """Give `target` what it lacks of `source`'s journal, byte for byte; the number of frames given. As
    `history`, or as what was just written."""
    given = 0
    group, other = source.group, target.group
    for span in group.spans(group.writer.written):
        if span.timeline in other.timelines and span.timeline != other.head.timeline:
            continue
        start = other.writer.written if span.timeline == other.head.timeline else span.start
        for frame in group.reader.frames(span.timeline, start, span.end, None):
            if given == frames:
                return given
            other.follow(frame.prefix, bytes(frame.raw), history=history)
            given += 1
    return given


def take_other_line(target: GroupRig, source: GroupRig, *, history: bool = False) -> None:
    """Give `target` the last run of `source`, in place of what it has since. `history`: see `follow`."""
    span = source.group.spans(source.group.writer.written)[-1]
    for frame in source.group.reader.frames(span.timeline, span.start, span.end, None):
        target.group.follow(frame.prefix, bytes(frame.raw), leave=True, history=history)


def filled(content: bytes) -> bytes:
    """A block of `content` over and over."""
    return (content * -(-BLOCK_BYTES // len(content)))[:BLOCK_BYTES]


def _raise(error: OSError | None) -> None:
    if error is not None:
        raise error
