"""A group that could not be opened because its journal is damaged: mended from the peer until it opens.

Recovery names the first place where a frame should be and is not, and changes nothing. The peer's frame of
that place is written there, durably, and the group is opened again, which walks the whole chain of digests
anew; so the next damaged place, if there is one, comes to light. A frame that helps nothing ends it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.journal.format import segment_path, start_from_name, timeline_directory
from engine.peering.peer_requests import PeerRequests
from engine.ports.awaited import synced
from engine.ports.disk import Disk, DiskFile
from protocol.errors import FarshoreError, NotFound
from protocol.frames import Frame, FramePrefix
from protocol.limits import SEGMENT_BYTES_MIN
from protocol.positions import Cut, parse_cut

FRAMES_MAX = 100_000


async def revive(
    name: str,
    error: FarshoreError,
    *,
    peer: PeerRequests,
    disk: Disk,
    reopen: Callable[[], Awaitable[None]],
    progress: Callable[[int], None],
) -> int:
    """Mend and open the group `name`, which `error` keeps closed, on the site's `disk`; the number of frames
    that were written again, which `progress` is told too. FarshoreError says what keeps it closed."""
    written = 0
    while True:
        at = _place(error)
        if at is None or written >= FRAMES_MAX:
            raise error
        frames = [frame async for frame in peer.frames(at.timeline, at.position, at.position + 1)]
        if not frames:
            raise NotFound(f"the peer has no frame at {at}", subject=name, position=str(at))
        await _write(disk, name, frames[0])
        written += 1
        progress(written)
        try:
            await reopen()
        except FarshoreError as again:
            if _place(again) == at:
                raise
            error = again
        else:
            return written


def _place(error: FarshoreError) -> Cut | None:
    try:
        return parse_cut(error.position)
    except FarshoreError:
        return None


async def _write(disk: Disk, name: str, frame: Frame) -> None:
    file, start = _file(disk, name, frame.prefix)
    position = frame.prefix.position
    try:
        file.pwrite(frame.raw, position - start)
        await synced(disk, [file])
    finally:
        file.close()


def _file(disk: Disk, name: str, prefix: FramePrefix) -> tuple[DiskFile, int]:
    """The open file that a frame belongs in, made anew if it has gone, and the position where it begins."""
    timeline, position = prefix.timeline, prefix.position
    directory = f"groups/{name}"
    names = disk.list_directory(f"{directory}/{timeline_directory(timeline)}")
    starts = [start for start in map(start_from_name, names) if start is not None and start <= position]
    if starts:
        file = disk.open(f"{directory}/{segment_path(timeline, max(starts))}")
        if position < max(starts) + file.size():
            return file, max(starts)
        file.close()
    disk.make_directory(f"{directory}/{timeline_directory(timeline)}")
    size = max(SEGMENT_BYTES_MIN, prefix.frame_bytes)
    return disk.preallocate(f"{directory}/{segment_path(timeline, position)}", size), position
