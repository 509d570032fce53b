"""One or more of everything that has a fixed form on disk or on the wire, as in tests/golden/encoded.json.

Numbers are taken from both sides of msgpack's steps (2^5, 2^7, 2^8, 2^16, 2^32), so that another choice of
form would show.
"""

from __future__ import annotations

from typing import Any

from protocol.base_messages import (
    BaseAck,
    BaseBegin,
    BaseDigests,
    BaseEnd,
    BaseFrames,
    BaseHoled,
    BaseMessage,
    BasePart,
    BaseSeeds,
    BaseWant,
    RecordRow,
    TimelineRow,
)
from protocol.compress import Compression
from protocol.events import (
    TRIM,
    WRITE,
    ZERO,
    Consistency,
    CopyDeleted,
    CopyPinned,
    HandOver,
    Mark,
    PolicySet,
    Record,
    Revert,
    RewriteBegan,
    RewriteEnded,
    Row,
    StrictMode,
    TimelineBegan,
    VolumeCreated,
    VolumeDeleted,
    VolumeRenamed,
    VolumeResized,
)
from protocol.messages import (
    Ack,
    Ask,
    Fetch,
    Fetched,
    FrameMessage,
    Heartbeat,
    Hello,
    MakeDurable,
    Message,
    Refused,
    Report,
    Reset,
    Welcome,
)
from protocol.peer_requests import (
    BlockContents,
    Blocks,
    Changed,
    Changes,
    Content,
    Find,
    Frames,
    Held,
    Hold,
    Journal,
    NoAnswer,
    Release,
)
from protocol.positions import POSITION_MAX, Cut

SITE = "00ff00ff12345678"
OTHER = "fedcba9876543210"
GROUP_ID = "0011223344556677"
UTC_NS = 1_763_000_000_123_456_789
DIGEST = bytes(range(16))
BIG = (1 << 64) - 1
SESSION = (1 << 62) - 3

LINEAGE = ((77, 0, 0, 1, SITE), (BIG, 77, 197, 2, OTHER), (1 << 32, BIG, POSITION_MAX, 129, SITE))
ABOUT: dict[str, Any] = {"session": SESSION, "group": "vm1", "group_id": GROUP_ID}

RECORDS: list[Record] = [
    TimelineBegan(parent=0, fork=0, generation=1, writer=SITE, group="vm1", sealed=True),
    TimelineBegan(
        parent=BIG, fork=70_000, generation=65_536, writer=OTHER, group="g" + "0" * 62, sealed=False
    ),
    VolumeCreated(name="root", size_bytes=4096),
    VolumeCreated(name="v" + "." * 32, size_bytes=1 << 50),
    VolumeDeleted(volume=197),
    VolumeResized(volume=197, size_bytes=1 << 40),
    VolumeRenamed(volume=70_000, name="root.2"),
    Mark(
        copy_id=BIG,
        label="nightly",
        cut=None,
        volumes=(127, 128, 255, 256, 65_535, 65_536, 1 << 32),
        consistency=Consistency.APPLICATION,
        pinned=True,
    ),
    Mark(copy_id=1, label="", cut=Cut(77, 1000), volumes=(197,), consistency=Consistency.CRASH, pinned=False),
    Revert(volume=197, cut=Cut(77, 1 << 33)),
    HandOver(to=OTHER),
    StrictMode(on=True),
    StrictMode(on=False),
    CopyPinned(copy_id=1 << 63, pinned=True),
    CopyPinned(copy_id=3, pinned=False),
    CopyDeleted(copy_id=1 << 62),
    PolicySet(
        every_s=3600, at_minute=-1, keep=(0, 24, 7, 4, 12, 10_000), window_s=-1, window_bytes=0, freeze=""
    ),
    PolicySet(
        every_s=0, at_minute=1439, keep=(1, 0, 0, 0, 0, 0), window_s=86_400, window_bytes=1 << 40, freeze="pg"
    ),
    RewriteBegan(volume=197, cut=Cut(77, 300), before=Cut(BIG, 1 << 20)),
    RewriteEnded(volume=65_536),
]

DATA_ROWS: list[Row] = [
    (WRITE, 197, 0, 1),
    (WRITE, 65_536, 127, 2),
    (ZERO, 197, 1 << 16, 1 << 20),
    (TRIM, 1 << 33, (1 << 38) - 1, 1),
]

MESSAGES: list[Message] = [
    Hello(session=SESSION, group="vm1", group_id=GROUP_ID, site=SITE, lineage=LINEAGE, written=9),
    Hello(session=9, group="vm1", group_id=GROUP_ID, site=SITE, lineage=(), written=0, adopt=True),
    Welcome(session=9, lineage=LINEAGE[:1], written=70_000, durable=65_535, digest=DIGEST),
    Welcome(session=9, lineage=(), written=0, durable=0, digest=bytes(16)),
    FrameMessage(session=9),
    FrameMessage(session=9, compression=Compression.ZSTD),
    Ack(session=SESSION, timeline=BIG, written=POSITION_MAX, durable=1 << 40),
    Ack(session=1, timeline=0, written=0, durable=0),
    Heartbeat(
        session=9, timeline=77, written=128, utc_ns=UTC_NS, state="paired", mode="sync-strict", horizon=32
    ),
    Refused(session=9, code="wrong-state", message="the group vm1 here is another one of the same name"),
    Reset(session=9, reason="expected 000000000000004d:197, got 000000000000004d:269"),
    Fetch(session=9, timeline=77, position=1 << 17),
    Fetched(session=9, done=True),
    Fetched(session=9, done=False),
    Ask(session=9, group="vm1", group_id=GROUP_ID),
    Report(session=9, role="primary", generation=3, timeline=77, written=999, durable=998),
    Report(session=9, role="", generation=0, timeline=0, written=0, durable=0),
    MakeDurable(session=9, position=1 << 31),
]

BASES: list[BaseMessage] = [
    BaseBegin(
        session=9,
        base=BIG - 2,
        cut=Cut(77, 5000),
        start=None,
        digest=DIGEST,
        utc_ns=UTC_NS,
        parts=1,
        parts_digest=DIGEST[::-1],
    ),
    BaseBegin(
        session=9,
        base=3,
        cut=Cut(77, 5000),
        start=Cut(BIG, 197),
        digest=DIGEST,
        utc_ns=0,
        parts=192,
        parts_digest=DIGEST,
    ),
    BasePart(session=9, base=3, number=0),
    BaseFrames(session=9, base=3),
    BaseFrames(session=9, base=3, compression=Compression.ZSTD),
    BaseEnd(session=9, base=3, end=1 << 24, digest=DIGEST),
    BaseAck(session=9, base=3, written=1 << 24, indexed=0, installed=False),
    BaseAck(session=9, base=3, written=1 << 24, indexed=1 << 24, installed=True),
    BaseSeeds(session=9, base=3, seeds=(("root", 1), ("v" + "." * 32, 1 << 34))),
    BaseWant(session=9, base=3, seed=255, chunk=16_384),
    BaseDigests(session=9, base=3, seed=0, chunk=0),
    BaseHoled(
        session=9,
        base=3,
        compression=Compression.ZSTD,
        frame_bytes=1 << 22,
        holes=((100, 4096, 0, 0), (65_636, 1 << 20, 255, (1 << 50) - (1 << 20))),
    ),
]

TIMELINE_ROWS = [
    TimelineRow(timeline=timeline, parent=parent, fork=fork, generation=generation, writer=writer)
    for timeline, parent, fork, generation, writer in LINEAGE
]
RECORD_ROWS = [
    RecordRow(timeline=77, position=269 + at, frame_position=269, utc_ns=UTC_NS, row=record.to_row())
    for at, record in enumerate(RECORDS)
]

PEER_REQUESTS: list[Message] = [
    Hold(**ABOUT, name="restore", cut=Cut(77, 197), for_s=3600),
    Hold(**ABOUT, name="Zürich 東京 1", cut=Cut(BIG, POSITION_MAX), for_s=604_800),
    Release(**ABOUT, name="restore"),
    Find(**ABOUT, utc_ns=UTC_NS),
    Blocks(**ABOUT, volume=197, cut=Cut(77, 1 << 20), blocks=tuple(range(100, 400, 2))),
    Blocks(**ABOUT, volume=197, cut=Cut(77, 1 << 20), blocks=()),
    Changes(**ABOUT, volume=197, before=Cut(77, 197), after=Cut(BIG, 1 << 40), first=0),
    Journal(**ABOUT, timeline=BIG, start=0, end=POSITION_MAX),
    Held(session=9, cut=Cut(77, 197)),
    Held(session=9, cut=Cut(0, 0)),
    BlockContents(session=9, contents=bytes((Content.ZEROES, Content.BYTES, Content.DAMAGED)) * 85),
    BlockContents(session=9, contents=b"", compression=Compression.ZSTD),
    Changed(session=9, next_block=1 << 38, done=True),
    Changed(session=9, next_block=16_384, done=False, compression=Compression.ZSTD),
    Frames(session=9),
    Frames(session=9, compression=Compression.ZSTD),
    NoAnswer(session=9, code="trimmed", message="no longer kept", position="000000000000004d:197"),
]
