"""Slices of a verification as requests to a group's indexer process: hosts do not wait for it there, and no
truncation changes the journal under it.

The figures of both answers end with five numbers for each damaged thing (`engine.integrity.faults`); the
number of those that there was no room for comes before them.

Called by the indexer process; reads no clock, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Annotated, Any, Self

from msgspec import Meta

from engine.index.requests import IndexRequest
from engine.index.versions import VERSION_KEY
from engine.integrity.faults import Damage, damage_from_numbers, damage_to_numbers
from engine.integrity.verified import Verified
from engine.integrity.verify import Stretch, all_lanes, load_segments, verify_stretch
from engine.integrity.verify_index import verify_rows
from engine.journal.segments import SegmentMap
from engine.ports.store import Store
from protocol.bounds import Count, DigestOrNone, Lane, Position, TimelineId
from protocol.limits import KEY_BYTES_MAX
from protocol.wire import RowType

# An answer is a row of at most 64 KiB; a number takes at most 9 bytes.
SLICE_DAMAGE_MAX = 1000
_DIGEST = Struct(">QQ")


_STRETCH = RowType(tuple[TimelineId, Lane, Position, Position, DigestOrNone, Position, Count])


class VerifyJournal(IndexRequest, frozen=True, kw_only=True, tag="verify-journal"):
    """Check a stretch of the journal, up to about `bytes_max` of it."""

    stretch: Stretch
    bytes_max: int

    def to_row(self) -> tuple[Any, ...]:
        """See `IndexRequest.to_row`."""
        at = self.stretch
        return (at.timeline, at.lane, at.start, at.end, at.digest or b"", at.indexed, self.bytes_max)

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """See `IndexRequest.from_row`."""
        timeline, lane, start, end, digest, indexed, bytes_max = _STRETCH.convert(row)
        stretch = Stretch(
            timeline=timeline, lane=lane, start=start, end=end, digest=digest or None, indexed=indexed
        )
        return cls(stretch=stretch, bytes_max=bytes_max)


class VerifyIndex(IndexRequest, frozen=True, kw_only=True, tag="verify-index"):
    """Check a slice of the index from key `start` on; `deep`, also the bytes that it names."""

    start: Annotated[bytes, Meta(max_length=KEY_BYTES_MAX)]
    deep: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSlice:
    """What came of a `VerifyJournal`."""

    position: int
    digest: bytes | None
    frames: int
    read_bytes: int
    missed: int
    damage: tuple[Damage, ...]

    @classmethod
    def from_figures(cls, figures: tuple[int, ...]) -> JournalSlice:
        """From the answer."""
        position, has_digest, high, low, frames, read_bytes, missed, *damage = figures
        return cls(
            position=position,
            digest=_DIGEST.pack(high, low) if has_digest else None,
            frames=frames,
            read_bytes=read_bytes,
            missed=missed,
            damage=tuple(damage_from_numbers(damage)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSlice:
    """What came of a `VerifyIndex`; `following` is empty at the end of the index."""

    following: bytes
    versions: int
    read_bytes: int
    missed: int
    damage: tuple[Damage, ...]

    @classmethod
    def from_figures(cls, figures: tuple[int, ...]) -> IndexSlice:
        """From the answer."""
        more, lane, volume, block, inverted, versions, read_bytes, missed, *damage = figures
        return cls(
            following=VERSION_KEY.pack(lane, volume, block, inverted) if more else b"",
            versions=versions,
            read_bytes=read_bytes,
            missed=missed,
            damage=tuple(damage_from_numbers(damage)),
        )


def handle_verify_journal(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A `VerifyJournal` request."""
    request = VerifyJournal.from_row(row)
    found = Verified(damage_max=SLICE_DAMAGE_MAX)
    segments.load_timeline(request.stretch.timeline)
    position, digest = verify_stretch(found, segments, store, request.stretch, request.bytes_max)
    high, low = _DIGEST.unpack(digest) if digest else (0, 0)
    damage = damage_to_numbers(found.damage)
    return (position, int(bool(digest)), high, low, found.frames, found.journal_bytes, found.missed, *damage)


def handle_verify_index(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A `VerifyIndex` request."""
    request = VerifyIndex.from_row(row)
    start, deep = request.start, request.deep
    found = Verified(damage_max=SLICE_DAMAGE_MAX)
    with store.read() as transaction:
        lanes = all_lanes(transaction)
    load_segments(segments, lanes)
    following = verify_rows(found, segments, store, start, deep)
    place = VERSION_KEY.unpack(following) if following else (0, 0, 0, 0)
    damage = damage_to_numbers(found.damage)
    return (int(bool(following)), *place, found.versions, found.version_bytes, found.missed, *damage)
