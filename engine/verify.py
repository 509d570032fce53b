"""Verification: is everything that the journal and the index promise still there and unchanged?

Plain: every frame of the head's lineage, its CRC and the digest chain; every index row decodes and names
bytes that exist. Deep: also the bytes of every version against the row's CRC, and a row for every block and
record of the indexed part of the journal. Damage is collected, not raised: one bad frame must not hide the
next.

Runs in a thread of its own with its own files; reads only.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field

from engine.base_rows import load_bases, load_pending
from engine.bases import spans_after
from engine.checkpoint import load_timelines
from engine.durable import RealDisk
from engine.journal.reader import BadFrame, JournalReader
from engine.journal.segments import SegmentMap
from engine.ports.store import ReadTransaction, Store
from engine.retention import NO_ANCHOR, Retention, load_retention
from engine.timelines import Span, TimelineTable
from engine.versions import NUMBER_MASK, RECORD_KEY, VERSION_KEY, check_bytes, read_version, stored_bytes
from protocol.errors import Corruption, FarshoreError
from protocol.events import LAST_DATA_KIND, WRITE
from protocol.frames import NO_DIGEST, Frame, FrameError, decode_rows
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from protocol.rows import pack_row

DAMAGE_MAX = 1000
_ROWS_PER_TRANSACTION = 5000


@dataclass(slots=True)
class Verified:
    """What was read, and what is wrong with it."""

    frames: int = 0
    journal_bytes: int = 0
    versions: int = 0
    damage: list[Corruption] = field(default_factory=list)

    def add(self, message: str, *, subject: str, position: str) -> None:
        """Note damage, up to `DAMAGE_MAX`."""
        if len(self.damage) < DAMAGE_MAX:
            self.damage.append(
                Corruption(
                    message,
                    subject=subject,
                    position=position,
                    next_step="do not restore through it here; the peer's copy is independent of this one",
                )
            )


def verify_group(
    directory: pathlib.Path, store: Store, name: str, spans: list[Span], indexed: int, deep: bool
) -> Verified:
    """Check the group in `directory` along `spans` (which end at what is durable); `indexed` is the position
    up to which the index must be complete. History that was folded before is not looked for, nor what lies
    before a base."""
    found = Verified()
    segments = SegmentMap(RealDisk(directory, None))
    with store.read() as transaction:
        retention = load_retention(transaction)
        lanes = {row.timeline.id: row.timeline.lane for row in load_timelines(transaction).values()}
        bases, pending = load_bases(transaction), load_pending(transaction)
    lanes |= {base.timeline: base.lane for base in bases} | {span.timeline: span.lane for span in spans}
    if pending is not None:
        lanes[pending.timeline] = pending.lane
    try:
        segments.load()
        for timeline, lane in lanes.items():
            segments.set_lane(timeline, lane)
        table = TimelineTable((), bases)
        held, first = spans_after(table, spans)
        _verify_journal(found, segments, store, name, held, first, indexed if deep else 0, retention)
        for base in bases:
            whole = base.end if deep else 0
            _verify_journal(found, segments, store, name, [base.span], NO_DIGEST, whole, Retention())
        _verify_index(found, segments, store, name, deep)
    finally:
        segments.close()
    return found


def _verify_journal(
    found: Verified,
    segments: SegmentMap,
    store: Store,
    name: str,
    spans: list[Span],
    digest: bytes | None,
    indexed: int,
    retention: Retention,
) -> None:
    reader = JournalReader(segments, retention.anchor)
    floor = max((cut.position for cut in retention.floors), default=0)
    for span in spans:
        position = span.start
        folded_to, anchor = retention.folded.get(span.timeline, (0, NO_ANCHOR))
        if folded_to > position:
            position, digest = min(folded_to, span.end), anchor.digest
        while position < span.end:
            try:
                for frame in reader.frames(span.timeline, position, span.end, digest):
                    found.frames += 1
                    found.journal_bytes += frame.prefix.frame_bytes
                    position, digest = frame.prefix.end, frame.prefix.digest
                    if floor < position <= indexed:
                        _require_rows(found, store, name, span.lane, frame)
            except (BadFrame, FarshoreError) as error:
                bad = Cut(span.timeline, error.position if isinstance(error, BadFrame) else position)
                segment = segments.segment_at(span.timeline, bad.position)
                found.add(
                    f"journal frame at {bad} is damaged: {error}",
                    subject=f"{name} {segment.path}" if segment else name,
                    position=str(bad),
                )
                position, digest = _next_start(segments, reader, span, bad.position), None


def _next_start(segments: SegmentMap, reader: JournalReader, span: Span, bad: int) -> int:
    """Where to go on after damage: behind the damaged frame if its length still leads to a frame, else at
    the next segment."""
    prefix = reader.prefix_at(span.timeline, bad)
    if prefix is not None and reader.prefix_at(span.timeline, prefix.end) is not None:
        return prefix.end
    later = [s.start for s in segments.of_timeline(span.timeline) if s.start > bad]
    return min(later, default=span.end)


def _require_rows(found: Verified, store: Store, name: str, lane: int, frame: Frame) -> None:
    """Every block of an indexed frame has its row, and every record is in the index as it is here."""
    prefix = frame.prefix
    number = prefix.payload_at
    with store.read() as transaction:
        for index, row in enumerate(decode_rows(prefix, frame.raw)):
            if row[0] > LAST_DATA_KIND:
                key = RECORD_KEY.pack(prefix.timeline, prefix.position + index)
                if transaction.get("records", key) != pack_row((prefix.utc_ns, prefix.position, row)):
                    found.add(
                        "a record is not in the index as the journal has it",
                        subject=f"{name} index.mdb",
                        position=str(Cut(prefix.timeline, prefix.position)),
                    )
            if row[0] != WRITE:
                continue
            _, volume, first, count = row
            for block in range(first, first + count):
                key = VERSION_KEY.pack(lane, volume, block, number ^ NUMBER_MASK)
                if transaction.get("versions", key) is None:
                    found.add(
                        f"block {block} of volume {volume:x}, written at {number}, has no index row",
                        subject=f"{name} index.mdb",
                        position=str(Cut(prefix.timeline, prefix.position)),
                    )
                number += BLOCK_BYTES


def _verify_index(found: Verified, segments: SegmentMap, store: Store, name: str, deep: bool) -> None:
    """A slice of rows a transaction: one that lived for the whole scan would keep LMDB from using pages
    again."""
    key = b"\0"
    while key:
        with store.read() as transaction:
            key = _verify_rows(found, segments, transaction, name, key, deep)


def _verify_rows(
    found: Verified, segments: SegmentMap, transaction: ReadTransaction, name: str, start: bytes, deep: bool
) -> bytes:
    """Check some rows from key `start`; the key to go on from, or nothing."""
    cursor = transaction.cursor("versions")
    more = cursor.set_range(start)
    for _ in range(_ROWS_PER_TRANSACTION):
        if not more:
            return b""
        key, value = bytes(cursor.key()), bytes(cursor.value())
        found.versions += 1
        lane, volume, block, inverted = VERSION_KEY.unpack(key)
        try:
            version = read_version(key, value)
            if version.tail:
                check_bytes(version, stored_bytes(transaction, version))
            elif not version.zero:
                data = segments.read_bytes(lane, version.number, BLOCK_BYTES if deep else 1)
                if deep:
                    check_bytes(version, data)
        except (FarshoreError, FrameError) as error:
            found.add(
                f"version of block {block} of volume {volume:x}: {error}",
                subject=f"{name} lane {lane} volume {volume:x} block {block}",
                position=str(inverted ^ NUMBER_MASK),
            )
        more = cursor.next()
    return bytes(cursor.key()) if more else b""
