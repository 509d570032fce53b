"""A sweep: the whole table of versions is looked through, in slices, for what earlier truncations kept and
nobody needs any more.

    meta 'sweep'          the key to go on from
    meta 'sweep-again'    empty: one is due, as cuts were given up since the last one began. A crash may come
                          between a truncation that gives them up and that sweep

Called by the indexer process; reads no clock.
"""

from __future__ import annotations

from typing import Any

from engine.index.levels import level_and_first
from engine.index.versions import BLOCK_PREFIX, NUMBER_MASK, VERSION_VALUE, unpack_version_key
from engine.journal.segments import SegmentMap
from engine.ports.store import Cursor, Store, WriteTransaction
from engine.retention.needed import NO_ANCHOR, RETENTION_KEY, Keep, Retention, load_retention
from engine.retention.reclaim_requests import SWEEP_AGAIN_KEY, SWEEP_KEY, SweepPlan
from engine.retention.thinning import Changes, Thinning, lanes_of

SWEEP_SLICE = 10_000  # blocks


def handle_sweep(store: Store, segments: SegmentMap, row: tuple[Any, ...]) -> tuple[int, ...]:
    """A request to the indexer."""
    return run_sweep(store, SweepPlan.from_row(row))


def run_sweep(store: Store, plan: SweepPlan) -> tuple[int, int, int]:
    """One slice of a sweep. OSError (ENOSPC): nothing changed."""
    changes = Changes()
    looked_at = 0
    dropped: dict[int, int] = {}
    for lane, number in plan.dropped:  # several runs of one branch may share a lane
        dropped[lane] = min(number, dropped.get(lane, number))
    with store.read() as transaction:
        before = load_retention(transaction)
        start = b"" if plan.begin else transaction.get("meta", SWEEP_KEY) or b""
        cursor = transaction.cursor("versions")
        thinning = Thinning(changes=changes, cursor=cursor, keep=plan.keep, lanes=lanes_of(cursor))
        more = cursor.set_range(start or b"\0")
        while more and looked_at < SWEEP_SLICE:
            lane, volume, block = BLOCK_PREFIX.unpack_from(cursor.key())
            if lane in dropped:
                _drop(changes, cursor, dropped[lane])
            if not level_and_first(block)[0]:  # a run is of the journal, whose truncation looks at it
                thinning.thin((lane, volume, block), None)
            looked_at += 1
            more = cursor.set_range(BLOCK_PREFIX.pack(lane, volume, block + 1))
        following = bytes(cursor.key()) if more else b""
    after = Retention(
        horizons=plan.keep.horizons,
        kept={cut: before.anchor(cut.timeline, cut.position) or NO_ANCHOR for cut in plan.keep.cuts},
        truncated=before.truncated,
    )
    with store.write() as write:
        changes.commit(write)
        write.put("meta", RETENTION_KEY, after.to_value())
        if plan.begin:  # all of it goes by what this plan gives up
            write.delete("meta", SWEEP_AGAIN_KEY)
        else:
            note_given_up(write, before, plan.keep)
        if following:
            write.put("meta", SWEEP_KEY, following)
        else:
            write.delete("meta", SWEEP_KEY)
    return looked_at, changes.gone, 0 if following else 1


def note_given_up(write: WriteTransaction, before: Retention, keep: Keep) -> None:
    """Note that a sweep is due if cuts that were kept are not any more."""
    if before.kept.keys() - keep.cuts:
        write.put("meta", SWEEP_AGAIN_KEY, b"")


def _drop(changes: Changes, cursor: Cursor, number: int) -> None:
    """From the newest row of a block, or of a run, on: all that are numbered `number` or above."""
    prefix = bytes(cursor.key())[: BLOCK_PREFIX.size]
    more = True
    while more:
        key = bytes(cursor.key())
        _, _, block, inverted = unpack_version_key(key)
        if not key.startswith(prefix) or inverted ^ NUMBER_MASK < number:
            return
        is_run = bool(level_and_first(block)[0])
        changes.gone += 1
        # Though its row may not be readable any more: what goes need not be.
        changes.removed.append((key, not is_run and len(cursor.value()) != VERSION_VALUE.size))
        more = cursor.next()
