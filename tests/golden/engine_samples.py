"""The rest of what has a fixed form: requests to the indexer, control messages, rows of stores, frames."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from engine.copies.copy_marks import CopyMark, put_copy_marks
from engine.group.clone_rows import CloneRow, put_clone
from engine.group.site_state import SITE_TABLES, GroupRow, PairRow, Role, SiteState
from engine.history.base_rows import PendingBase, put_base, put_pending
from engine.history.timelines import Base, Timeline
from engine.index.base_requests import BaseDrop, BaseInstall, BaseOpen, BasePart
from engine.index.checkpoint import CheckpointPlan
from engine.index.compaction import CompactPlan
from engine.index.forgetting import ForgetPlan
from engine.index.indexed_history import timeline_row
from engine.index.requests import IndexRequest
from engine.integrity.drills import Drill, Drills, Step
from engine.integrity.index_repair import RepairIndex
from engine.integrity.verify import Stretch
from engine.integrity.verify_slices import VerifyIndex, VerifyJournal
from engine.peering.pair_states import Mode, PairState
from engine.retention.needed import Anchor, Keep, Retention
from engine.retention.reclaim_requests import SweepPlan, TruncatePlan
from protocol.commands.backup import BackupCreate
from protocol.commands.base import Command
from protocol.commands.cut import CutResolve
from protocol.commands.event import Events
from protocol.commands.journal import JournalShow
from protocol.commands.pair import PairCreate, WaitFor
from protocol.commands.peer import PeerAdd
from protocol.commands.site import SiteStatus
from protocol.commands.volume import VolumeCreate, VolumeList
from protocol.cut_text import CutLatest
from protocol.envelopes import Request, encode_answer, encode_data, encode_request, error_answer, ok_answer
from protocol.errors import NotFound
from protocol.frames import encode_frame
from protocol.limits import BLOCK_BYTES
from protocol.positions import POSITION_MAX, Cut
from tests.golden.samples import BIG, DATA_ROWS, DIGEST, GROUP_ID, LINEAGE, RECORDS, UTC_NS
from tests.sim.sim_store import SimStore, StoreFile

TIMELINES = tuple(
    Timeline(id=timeline, parent=parent, fork=fork, generation=generation, writer=writer, lane=lane)
    for lane, (timeline, parent, fork, generation, writer) in enumerate(LINEAGE)
)
BASE = Base(
    cut=Cut(77, 5000),
    start=None,
    timeline=5,
    lane=1 << 31,
    end=1 << 24,
    utc_ns=UTC_NS,
    digest=DIGEST,
    left=Cut(77, 197),
)
KEEP = Keep(
    horizons=frozenset({Cut(77, 1000)}),
    cuts=frozenset({Cut(77, 197), Cut(BIG, 269)}),
    lane_horizons={0: 1000, 1: 1 << 40},
    bounds={0: (197, 1000), 2: ()},
)
RETENTION = Retention(
    horizons=frozenset({Cut(77, 1000), Cut(BIG, 1 << 33)}),
    kept={Cut(77, 197): Anchor(DIGEST, UTC_NS), Cut(77, 900): Anchor(b"", 0)},
    truncated={77: (197, Anchor(DIGEST, UTC_NS))},
)

REQUESTS: list[IndexRequest] = [
    CheckpointPlan(target=Cut(77, 5000), durable=5000, timelines=TIMELINES, branches=(Cut(BIG, 1 << 33),)),
    CheckpointPlan(target=Cut(77, 197), durable=269, timelines=TIMELINES[:1]),
    BaseOpen(timeline=5, cut=Cut(77, 5000), start=None),
    BaseOpen(timeline=5, cut=Cut(77, 5000), start=Cut(BIG, 197)),
    BasePart(timeline=BIG - 1, end=1 << 24),
    BaseInstall(
        timeline=BASE.timeline,
        end=BASE.end,
        utc_ns=BASE.utc_ns,
        digest=BASE.digest,
        left=BASE.left,
        timelines=TIMELINES,
        parts=(b"\x90", b"\x91\x90" * 200),
    ),
    BaseDrop(timeline=5),
    TruncatePlan(timeline=77, lane=0, start=0, end=1 << 26, keep=KEEP),
    SweepPlan(begin=True, dropped=((0, 197), (3, 1 << 40)), keep=KEEP),
    SweepPlan(begin=False, dropped=(), keep=KEEP),
    ForgetPlan(parts=((77, 197, DIGEST), (BIG, 0, bytes(16))), left=((BIG, Cut(77, 197)), (5, Cut(0, 0)))),
    CompactPlan(),
    VerifyJournal(
        stretch=Stretch(timeline=77, lane=0, start=0, end=POSITION_MAX, digest=DIGEST, indexed=197),
        bytes_max=8 << 20,
    ),
    VerifyJournal(
        stretch=Stretch(timeline=77, lane=1 << 31, start=0, end=1, digest=None, indexed=0), bytes_max=1
    ),
    VerifyIndex(start=b"", deep=False),
    VerifyIndex(start=bytes(28), deep=True),
    RepairIndex(table="versions", key=bytes(28), value=bytes(20), head=b"x" * 4080),
    RepairIndex(table="records", key=bytes(16), value=b"\x93\x01\x02\x90"),
    TruncatePlan(timeline=77, lane=0, start=0, end=1 << 20, keep=KEEP, room_bytes=1 << 24),
    TruncatePlan(timeline=77, lane=0, start=0, end=1 << 20, keep=KEEP, after=(197, 1 << 28)),
]

COMMANDS: list[Command] = [
    SiteStatus(),
    VolumeCreate(group="vm1", volume="root", size_bytes=1 << 40),
    VolumeList(),
    PairCreate(group="vm1", peer="par"),
    PeerAdd(token="farshore1.e30"),
    BackupCreate(group="vm1", label="nightly"),
    WaitFor(group="vm1", state="paired", timeout_s=2.5),
    Events(since=77, limit=10),
    JournalShow(group="vm1", limit=9999),
    CutResolve(group="vm1", cut=CutLatest()),
]


def control_messages() -> Iterator[bytes]:
    """Requests and replies between console and daemon."""
    for command in COMMANDS:
        yield encode_request(Request(id=DIGEST, deadline_s=30.0, command=command, idempotency_key="k" * 33))
    data = encode_data({"group": "vm1", "written": 1 << 33, "ok": True, "lag_s": None})
    yield encode_answer(ok_answer(DIGEST, data))
    yield encode_answer(error_answer(DIGEST, NotFound("there is no group vm2 here", subject="vm2")))


def frames() -> Iterator[bytes]:
    """Every kind of record in a frame of its own, then one of data."""
    position, digest = 0, bytes(16)
    for record in RECORDS:
        frame = encode_frame(
            timeline=77,
            position=position,
            utc_ns=UTC_NS,
            durable=0,
            previous_digest=digest,
            rows=[record.to_row()],
            payload=(),
            payload_bytes=0,
        )
        position, digest = frame.prefix.end, frame.prefix.digest
        yield bytes(frame.raw)
    payload = [random.Random(number).randbytes(32) * (BLOCK_BYTES // 32) for number in range(3)]
    frame = encode_frame(
        timeline=77,
        position=position,
        utc_ns=UTC_NS,
        durable=position,
        previous_digest=digest,
        rows=DATA_ROWS,
        payload=payload,
        payload_bytes=3 * BLOCK_BYTES,
    )
    yield bytes(frame.raw)


def filled_state() -> SiteState:
    """A site's state with rows of every kind that the engine writes by itself."""
    store = SimStore(StoreFile(), SITE_TABLES)
    state = SiteState(store)
    for role in Role:
        name = f"vm-{role.value}"
        state.put_group(GroupRow(name=name, group_id=GROUP_ID, role=role, head=BIG, created_utc_ns=UTC_NS))
    state.put_group(GroupRow(name="new", group_id=GROUP_ID, role=Role.PRIMARY, head=0, created_utc_ns=1))
    for number, (mode, pair_state) in enumerate((m, s) for m in Mode for s in PairState):
        row = PairRow(group=f"g{number}", peer="par", mode=mode, state=pair_state, reason="a reason")
        state.put_pair(row)
    state.set_shipped("vm1", BIG)
    state.set_heard("vm1", 129)
    state.set_closed("vm1", [197], "turned back")
    state.put_lease("vm1", "asked by par: Zürich", Cut(BIG, 197), UTC_NS)
    state.put_lease("vm1", "base", Cut(77, POSITION_MAX))
    state.put_drop("vm1", 77, [(77, 197), (BIG, 1 << 33)])
    put_copy_marks(state, "vm1", {3: CopyMark(UTC_NS, "2 blocks")})
    put_clone(
        state,
        CloneRow(
            name="lab",
            group="vm1",
            cut=Cut(77, 197),
            timelines=(5, BIG),
            volumes=(197,),
            created_utc_ns=UTC_NS,
            temporary=True,
            purpose="drill",
        ),
    )
    step = Step(step="mount", volume="root", state="failed", took_ms=1234, said="no file system é")
    Drills(store).add(
        Drill(
            group="vm1",
            started_utc_ns=UTC_NS,
            volumes=("root", "log"),
            cut=Cut(77, 197),
            cut_utc_ns=0,
            ok=False,
            recovery_ms=70_000,
            data_age_ms=-1,
            steps=(step, step),
        )
    )
    return state


def state_rows() -> Iterator[bytes]:
    """Every row of `filled_state`, as table, key and value."""
    state = filled_state()
    for table in SITE_TABLES:
        for key, value in sorted(state.notes(table).items()):
            yield msgspec.msgpack.encode((table, key, value))


def index_rows() -> Iterator[bytes]:
    """Values of the index's tables `timelines` and `meta`."""
    yield timeline_row(TIMELINES[1], 1 << 33, DIGEST)
    yield timeline_row(TIMELINES[0], 0, b"")
    yield RETENTION.to_value()
    yield Retention().to_value()
    store = SimStore(StoreFile(), ("meta",))
    with store.write() as write:
        put_base(write, BASE)
        put_pending(
            write,
            PendingBase(
                timeline=5,
                lane=1 << 31,
                cut=Cut(77, 5000),
                start=Cut(BIG, 197),
                indexed=70_000,
                digest=DIGEST,
            ),
        )
    with store.read() as transaction:
        cursor = transaction.cursor("meta")
        more = cursor.set_range(b"\0")
        while more:
            yield bytes(cursor.key()) + bytes(cursor.value())
            more = cursor.next()
