"""What a copy takes: how much its volumes hold, and how much of that only it needs.

Unique is what a truncation or sweep would give back if the copy were gone (`engine.retention.needed` decides,
here as there): versions below their lane's horizon that no other cut needs. Inside the any-point window
everything is needed anyway, so a young copy has nothing of its own. A copy keeps its cut for the whole group,
so unique bytes may be of volumes that it does not name.

Both are counted in slices, so that hosts do not wait; what happens in between may be counted or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from engine.copies.copies import Copy
from engine.group.group import Group
from engine.index.levels import level_and_first
from engine.index.versions import BLOCK_PREFIX, read_version, unpack_version_key
from engine.retention.cut_bounds import BoundsOfCuts
from engine.retention.needed import Keep, needed, same_name, what_to_keep
from protocol.limits import BLOCK_BYTES

SLICE_ROWS = 2_000


def held_bytes(group: Group, copy: Copy) -> Iterator[int]:
    """Bytes of data in a copy's volumes, slice by slice. Trimmed if it can no longer be read."""
    group.kept.require(copy.cut)
    spans = group.timelines.lineage(copy.cut.timeline, copy.cut.position)
    for name, volume in sorted(group.volumes.at(spans).items()):
        if volume.id not in copy.volumes:
            continue
        view = group.kept.view_at(name, copy.cut)
        offset = 0
        while offset < view.size_bytes:
            extents = view.extents(offset, view.size_bytes - offset)
            offset += sum(size for size, _ in extents)
            yield sum(size for size, data in extents if data)


def unique_bytes(group: Group, copies: Collection[Copy]) -> Iterator[int]:
    """Bytes that the index would give back without these copies, slice by slice."""
    cuts = {copy.cut for copy in copies}
    if not any(same_name(group.timelines, cut) in group.kept.retention.kept for cut in cuts):
        return
    gone = {copy.id for copy in copies}
    others = group.copies.retained(group.spans(), group.writer.durable, without=gone)
    others |= group.kept.leases.cuts()
    bounds = BoundsOfCuts(group.timelines, group.volumes)
    horizons = group.kept.retention.horizons
    keeps = [
        what_to_keep(
            group.timelines,
            group.volumes,
            group.kept.retention,
            horizons,
            wanted,
            group.kept.tails(horizons),
            bounds.of,
        )
        for wanted in (others | cuts, others)
    ]
    if keeps[0].cuts == keeps[1].cuts:
        return
    start = b"\0"
    while start:
        freed, start = _slice(group, keeps[0], keeps[1], start)
        yield freed * BLOCK_BYTES


def _slice(group: Group, keep: Keep, without: Keep, start: bytes) -> tuple[int, bytes]:
    """Versions with bytes that only `keep` needs, in whole blocks from `start` on, and where to go on."""
    freed = rows = 0
    with group.store.read() as transaction:
        cursor = transaction.cursor("versions")
        block, newer = b"", None
        more = cursor.set_range(start)
        while more:
            key = bytes(cursor.key())
            if key[: BLOCK_PREFIX.size] != block:
                if rows >= SLICE_ROWS:
                    return freed, key
                block, newer = key[: BLOCK_PREFIX.size], None
            rows += 1
            if level_and_first(unpack_version_key(key)[2])[0]:
                newer, more = None, cursor.next()  # of the journal: a truncation takes runs apart
                continue
            lane = unpack_version_key(key)[0]
            version = read_version(key, cursor.value())
            if version.number < keep.lane_horizons.get(lane, 0):
                if newer is not None and not version.zero:
                    freed += needed(version.number, newer, keep.bounds.get(lane, ())) and not needed(
                        version.number, newer, without.bounds.get(lane, ())
                    )
                newer = version.number
            more = cursor.next()
    return freed, b""
