"""What this site's past of a group says, in portions that one message takes: blocks at a cut, what changed
between two, and frames."""

from __future__ import annotations

from engine.group.group import Group
from engine.index.changes import ChangeScan
from engine.index.view import ZERO_BLOCK, VolumeView
from engine.journal.reader import BadFrame
from engine.ports.disk import Buffer
from protocol.errors import Corruption, NotFound
from protocol.limits import BLOCK_BYTES, FRAME_BYTES_MAX, PEER_REQUEST_CHANGES_MAX
from protocol.peer_requests import Blocks, Changes, Content, Journal
from protocol.positions import Cut
from protocol.rows import pack_row


def contents_of(group: Group, request: Blocks) -> tuple[bytes, bytes]:
    """A `Content` of each block, and the bytes of those that have some."""
    view = group.kept.view_of(request.volume, request.cut)
    kinds = bytearray()
    pieces = []
    with view.batch() as batch:
        for block in request.blocks:
            if block * BLOCK_BYTES >= view.size_bytes:
                kinds.append(Content.ZEROES)
                continue
            try:
                data = view.read_block(batch, block)
            except (Corruption, OSError):
                kinds.append(Content.DAMAGED)
                continue
            if data == ZERO_BLOCK:
                kinds.append(Content.ZEROES)
            else:
                kinds.append(Content.BYTES)
                pieces.append(data)
    return bytes(kinds), b"".join(pieces)


def change_scan(group: Group, volume: int, before: VolumeView, after: VolumeView, first: int) -> ChangeScan:
    """A scan for the blocks of a volume (id) that may differ between two views of it."""
    return ChangeScan(
        store=group.store,
        memtable=group.memtable,
        volume=volume,
        blocks=group.volumes.most_blocks(volume),
        before=before.intervals,
        after=after.intervals,
        first=first,
    )


def changes_of(group: Group, request: Changes) -> tuple[int, bool, bytes]:
    """Where to ask on, whether that was all, and the runs."""
    volume = request.volume
    before, after = (group.kept.view_of(volume, cut) for cut in (request.before, request.after))
    scan = change_scan(group, volume, before, after, request.first)
    blocks = scan.slice()
    next_block, done = scan.next_block, scan.done
    if len(blocks) > PEER_REQUEST_CHANGES_MAX:
        next_block, done = blocks[PEER_REQUEST_CHANGES_MAX], False
        del blocks[PEER_REQUEST_CHANGES_MAX:]
    runs: list[int] = []
    for block in blocks:
        if runs and runs[-2] + runs[-1] == block:
            runs[-1] += 1
        else:
            runs += [block, 1]
    return next_block, done, pack_row(runs)


def frames_of(group: Group, request: Journal) -> bytes:
    """As many frames as one message takes; at least one."""
    found: list[Buffer] = []
    room = FRAME_BYTES_MAX
    end = min(request.end, group.end_of(request.timeline))
    try:
        for frame in group.reader.frames(request.timeline, request.start, end, None):
            room -= frame.prefix.frame_bytes
            if room < 0:
                break
            found.append(frame.raw)
    except BadFrame:
        if not found:
            raise
    if not found:
        raise NotFound(
            f"there are no frames from {Cut(request.timeline, request.start)} on",
            subject=group.name,
            position=str(Cut(request.timeline, request.start)),
        )
    return b"".join(found)
