"""What one seed runs: sizes, limits, load and which faults, all drawn from the seed.

Each seed leaves some faults out and makes others common, because a bug that needs three of one kind in a row
hides where everything happens equally often.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from types import ModuleType

import engine.history.lineage
import engine.index.levels
import engine.journal.recovery
import engine.journal.room
import engine.journal.writer
import engine.retention.journal_space
import engine.retention.truncation
import site_primary.nbd.connection
import site_primary.shipping.send_window
import site_primary.write_path
from engine.group.settings import GroupSettings
from engine.peering.pair_states import Mode
from protocol.commands.peer import RateWindow
from protocol.compress import Compression
from protocol.nbd.constants import Command
from protocol.positions import POSITION_MAX
from tests.sim.content import SECTORS_PER_BLOCK
from tests.sim.mortal import readable_frames_after
from tests.sim.sim_disk import SYNC_DELAY_S

SHORT_WINDOW_S = 0.5
SLOW_SYNC_S = (0.02, 3.0)
SMALL_JOURNAL_BYTES = 1 << 20

Patch = tuple[ModuleType | type, str, object]


class Fault(Enum):
    """What may go wrong."""

    KILL = "kill"
    POWER = "power"
    DIE_IN_CHANGE = "die in change"
    POWER_IN_CHANGE = "power in change"
    STOP = "stop"
    BOTH_POWER = "both lose power"
    CUT = "cut"
    PART = "part"
    BLACKHOLE = "blackhole"
    SLOW = "slow"
    DAMAGE = "damage"
    SYNC_ERROR = "sync error"
    WRITE_ERROR = "write error"
    DISK_FULL = "disk full"
    COMMIT_ERROR = "commit error"
    CLOCK_JUMP = "clock jump"
    OLD_COPY = "old copy put back"
    UNREADABLE = "fetched journal unreadable"


class Task(Enum):
    """What an operator does."""

    BACKUP = "backup"
    OLD_BACKUP = "backup of an earlier cut"
    REVERT = "revert"
    RESIZE = "resize"
    SPLIT = "split"
    DETACH = "detach"
    RESYNC = "resync"
    RESYNC_LOCAL = "resync local"
    RESYNC_REMOTE = "resync remote"
    SWITCHOVER = "switchover"
    TAKEOVER = "takeover"
    ONLINE = "online"
    AUDIT = "audit"
    DROP = "branch dropped"
    REVERT_TO_BRANCH = "revert to a cut of a branch"


class Habit(Enum):
    """What a life is like from beginning to end. Few are, and all others are as if there were none."""

    WHOLE_RUNS = "whole runs"  # hosts write and discard nothing else
    SHORT_WINDOW = "short window"  # the past goes at once, and the journal with it
    LETS_GO = "lets go"  # a journal too small to wait for a peer, which gets the changed blocks instead
    SELDOM_INDEXED = "seldom indexed"  # nothing but a restart or a truncation begins a checkpoint
    SLOW_SYNCS = "slow syncs"  # as of a disk that others keep busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What hosts do. `fua`: part of the writes that ask for it; `run_sectors`: what they write begins and
    ends at multiples of so many, if it is not 0."""

    hosts: int
    think_s: float
    requests_max: int
    sectors_max: int
    fua: float
    weights: dict[Command, float]
    run_sectors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """See the module's docstring. Sizes in bytes, times in virtual seconds."""

    volumes: tuple[int, ...]  # sectors of each
    duration_s: float
    load: Load
    settings: GroupSettings
    indexer_delay_s: tuple[float, float]
    faults: dict[Fault, float]
    fault_every_s: float
    tasks: dict[Task, float]
    task_every_s: float
    patches: tuple[Patch, ...]
    rate_bytes_s: int
    rate_windows: tuple[RateWindow, ...]  # other rates by the time of day
    mode: Mode
    compression: Compression
    clocks_off_s: tuple[float, float]  # how wrong each site's wall clock is, all along
    sync_delay_s: tuple[float, float] = SYNC_DELAY_S

    def without_journal_limit(self) -> GroupSettings:
        """What an operator sets once the limit was reached."""
        return replace(self.settings, journal_limit_bytes=POSITION_MAX)


Focus = tuple[Fault | Task | Habit, ...]


def focused(shape: Shape, focus: Focus) -> Shape:
    """The same with some faults and tasks that happen most of the time, and with habits: what takes two of a
    kind in a row is met in hundreds of seeds and not in thousands."""
    if not focus:
        return shape
    shape = _with_habits(shape, [each for each in focus if isinstance(each, Habit)])
    if not any(isinstance(each, Fault | Task) for each in focus):
        return shape
    faults = {**shape.faults, **{each: 12.0 for each in focus if isinstance(each, Fault)}}
    tasks = {**shape.tasks, **{each: 12.0 for each in focus if isinstance(each, Task)}}
    return replace(shape, faults=faults, tasks=tasks, fault_every_s=0.2, task_every_s=0.15)


def shape_of(rng: random.Random) -> Shape:
    """Draw one."""
    segment_bytes = rng.choice((128, 256, 512)) << 10
    volumes = tuple(rng.randint(2, 40) * SECTORS_PER_BLOCK for _ in range(rng.choice((1, 1, 2))))
    duration_s = rng.uniform(4.0, 12.0)
    # Drawn apart, so that every other draw of a seed stays what it was.
    apart = random.Random(duration_s)
    shape = Shape(
        volumes=volumes,
        duration_s=duration_s,
        rate_bytes_s=apart.choice((0, 0, 256 << 10, 2 << 20)),
        compression=apart.choice(tuple(Compression)),
        mode=apart.choice((Mode.ASYNC, Mode.ASYNC, Mode.SYNC, Mode.SYNC_STRICT)),
        clocks_off_s=(_clock_off(apart), _clock_off(apart)),
        load=_rarely_written(_load(rng), apart),
        settings=_settings(rng),
        indexer_delay_s=rng.choice(((0.002, 0.05), (0.05, 1.0), (0.5, 3.0))),
        faults=_faults(rng),
        fault_every_s=rng.choice((0.3, 0.8, 2.0)),
        tasks={
            Task.BACKUP: 3.0,
            Task.OLD_BACKUP: 1.0,
            Task.REVERT: rng.choice((0.0, 1.0, 3.0)),
            Task.ONLINE: 4.0,
            Task.AUDIT: 4.0,
            **_role_tasks(rng),
            Task.RESIZE: apart.choice((0.0, 0.5, 2.0)),
        },
        task_every_s=rng.choice((0.15, 0.5)),
        # Some have frames that are larger than the smallest segment.
        patches=_patches(rng, segment_bytes, apart.choice((16, 128, 128, 128, 128)) << 10),
        rate_windows=_rate_windows(apart),
    )
    shape = replace(shape, patches=(*shape.patches, _runs(apart)))
    shape = _with_branches(_with_habits(shape, _habits(apart)), apart)
    return _with_habits(shape, apart.choice(((), (), (), (Habit.SLOW_SYNCS,))))


def _habits(apart: random.Random) -> tuple[Habit, ...]:
    """Three lives in four have none."""
    short = Habit.SHORT_WINDOW
    some = ((Habit.LETS_GO,), (short,), (Habit.WHOLE_RUNS, short), (short,), (Habit.SELDOM_INDEXED,))
    return apart.choice(((),) * 15 + some)


def _with_habits(shape: Shape, habits: Iterable[Habit]) -> Shape:
    for habit in habits:
        match habit:
            case Habit.WHOLE_RUNS:
                ((_, _, shifts),) = (patch for patch in shape.patches if patch[1] == "RUN_SHIFTS")
                assert isinstance(shifts, tuple)
                run_sectors = SECTORS_PER_BLOCK << shifts[0]
                volumes = tuple(max(sectors, 2 * run_sectors) for sectors in shape.volumes)
                shape = replace(shape, volumes=volumes, load=replace(shape.load, run_sectors=run_sectors))
            case Habit.SHORT_WINDOW:
                shape = replace(shape, settings=replace(shape.settings, window_s=SHORT_WINDOW_S))
            case Habit.LETS_GO:
                patches = tuple(patch for patch in shape.patches if patch[1] != "_detach_slowest")
                settings = replace(shape.settings, journal_limit_bytes=SMALL_JOURNAL_BYTES)
                shape = replace(shape, settings=settings, patches=patches)
            case Habit.SELDOM_INDEXED:
                settings = replace(
                    shape.settings,
                    memtable_soft=50_000,
                    memtable_hard=100_000,
                    checkpoint_after_bytes=1 << 30,
                )
                shape = replace(shape, settings=settings)
            case Habit.SLOW_SYNCS:
                shape = replace(shape, sync_delay_s=SLOW_SYNC_S)
    return shape


def _with_branches(shape: Shape, apart: random.Random) -> Shape:
    """One life in ten also drops branches, and goes back to them."""
    if apart.random() < 0.9:
        return shape
    return replace(shape, tasks={**shape.tasks, Task.DROP: 1.5, Task.REVERT_TO_BRANCH: 1.5})


def _runs(rng: random.Random) -> Patch:
    """Runs of blocks so short that volumes as small as these have many of them, whole and in parts."""
    return (engine.index.levels, "RUN_SHIFTS", rng.choice(((2, 4, 8), (1, 2, 3), (1, 3, 4))))


def _rate_windows(rng: random.Random) -> tuple[RateWindow, ...]:
    """In a third of the seeds. Clocks jump by an hour and by a day, and are wrong by as much as years."""
    return tuple(
        RateWindow(
            from_minute=begin,
            until_minute=(begin + rng.choice((30, 60, 720))) % 1440,
            zone=rng.choice(("UTC", "Europe/Berlin", "Australia/Lord_Howe")),
            rate_bytes_s=rng.choice((0, 256 << 10, 2 << 20)),
        )
        for begin in rng.choice(((), (), (0, 23 * 60)))
    )


def _role_tasks(rng: random.Random) -> dict[Task, float]:
    """A third of the seeds move no roles: what is found there is not about them."""
    moves = rng.choice((0.0, 1.0, 1.0))
    return {
        Task.SPLIT: rng.choice((0.0, 0.7, 1.5)),
        Task.DETACH: moves * rng.choice((0.0, 6.0)),
        Task.RESYNC: rng.choice((0.3, 3.0)),
        Task.RESYNC_LOCAL: moves * rng.choice((0.0, 1.0)),
        Task.RESYNC_REMOTE: moves * rng.choice((0.0, 1.0)),
        Task.SWITCHOVER: moves * rng.choice((0.0, 1.0, 3.0)),
        Task.TAKEOVER: moves * rng.choice((0.0, 2.0, 6.0)),
    }


def _load(rng: random.Random) -> Load:
    return Load(
        hosts=rng.randint(1, 3),
        think_s=rng.choice((0.02, 0.06, 0.2)),
        requests_max=rng.choice((1, 3, 8)),
        sectors_max=rng.choice((32, 128, 320)),
        fua=rng.choice((0.0, 0.1, 0.5)),
        weights={
            Command.WRITE: 10.0,
            Command.WRITE_ZEROES: rng.choice((0.0, 1.0)),
            Command.TRIM: rng.choice((0.0, 1.0)),
            Command.READ: 4.0,
            Command.FLUSH: rng.choice((0.1, 1.0, 4.0)),
        },
    )


def _rarely_written(load: Load, apart: random.Random) -> Load:
    """Some hosts mostly read: a site then serves for a while before its first write."""
    if apart.random() < 0.9:
        return load
    return replace(load, weights={**load.weights, Command.WRITE: 0.3})


def _settings(rng: random.Random) -> GroupSettings:
    soft = rng.choice((20, 100, 400, 5000))
    return GroupSettings(
        journal_limit_bytes=rng.choice((POSITION_MAX, POSITION_MAX, POSITION_MAX, 3 << 20)),
        reserve_bytes=rng.choice((0, 64 << 10)),
        memtable_soft=soft,
        memtable_hard=soft * rng.choice((2, 6)),
        checkpoint_after_bytes=rng.choice((64 << 10, 512 << 10, 16 << 20)),
    )


def _clock_off(rng: random.Random) -> float:
    """Most clocks are right, some are wrong by seconds, by a day or by years."""
    return rng.choice((0.0, 0.0, 0.0, rng.uniform(-9.0, 9.0), -86400.0, 86400.0, 1e8, -1e8))


def _faults(rng: random.Random) -> dict[Fault, float]:
    faults = {fault: rng.choice((0.0, 0.0, 0.3, 1.0, 3.0)) for fault in Fault}
    # An operator's mistake, so not every life has it; one is enough for most of what it leads to.
    faults[Fault.OLD_COPY] = rng.choice((0.0, 0.0, 0.0, 0.1, 0.5))
    return faults


def _patches(rng: random.Random, segment_bytes: int, segment_bytes_min: int) -> tuple[Patch, ...]:
    """Bounds small enough to be met: at their real sizes a run of some seconds fills no segment."""
    payload_bytes = rng.choice((16, 32, 96)) << 10
    write_path, writer = site_primary.write_path, engine.journal.writer
    room = engine.journal.room
    window = site_primary.shipping.send_window
    in_flight_bytes = rng.choice((128 << 10, 1 << 20))
    return (
        (write_path, "FRAME_PAYLOAD_BYTES_MAX", payload_bytes),
        (write_path, "FRAME_EVENTS_MAX", rng.choice((4, 100))),
        (room, "SEGMENT_BYTES", segment_bytes),
        (room, "SEGMENT_BYTES_MIN", segment_bytes_min),
        (room, "INDEX_TRANSACTION_BYTES", 16 << 10),
        (engine.retention.truncation, "INDEX_TRANSACTION_BYTES", 16 << 10),
        (writer, "SYNC_AFTER_BYTES", rng.choice((32 << 10, 256 << 10, 16 << 20))),
        # A peer that was let go needs the changed blocks, which are not shipped here.
        (engine.retention.journal_space.JournalSpace, "_detach_slowest", lambda *_: None),
        (window, "SHIP_IN_FLIGHT_BYTES_MAX", in_flight_bytes),
        (window, "SHIP_IN_FLIGHT_FRAMES_MAX", rng.choice((3, 1000))),
        (window, "SHIP_MESSAGE_BYTES", rng.choice((8 << 10, 64 << 10))),
        (window, "SHIP_READ_BYTES", 128 << 10),
        (engine.history.lineage, "frames_after", readable_frames_after),
        (site_primary.nbd.connection, "NBD_FIRST_BUFFER_BYTES", rng.choice((4 << 10, 64 << 10))),
    )
