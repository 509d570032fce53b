"""A group that could not be opened because its journal is damaged: mended from the peer until it opens.

Recovery names the first place where a frame should be and is not, and changes nothing. The peer's frame of
that place is written there, durably, and the group is opened again, which walks the whole chain of digests
anew; so the next damaged place, if there is one, comes to light. A frame that helps nothing ends it.
"""

from __future__ import annotations

import asyncio

from daemon.jobs import Job
from daemon.site import Site
from engine.journal.format import segment_path, start_from_name, timeline_directory
from engine.ports.disk import DiskFile
from protocol.errors import FarshoreError, NotFound
from protocol.frames import Frame
from protocol.limits import SEGMENT_BYTES
from protocol.positions import Cut, parse_cut

FRAMES_MAX = 100_000


async def revive(site: Site, job: Job, name: str) -> int:
    """Mend and open a group; the number of frames that were written again. FarshoreError says what keeps it
    closed."""
    peer = site.ask_peer(name)
    written = 0
    while (error := site.damaged.get(name)) is not None:
        at = _place(error)
        if at is None or written >= FRAMES_MAX:
            raise error
        frames = [frame async for frame in peer.frames(at.timeline, at.position, at.position + 1)]
        if not frames:
            raise NotFound(f"the peer has no frame at {at}", subject=name, position=str(at))
        await _write(site, name, frames[0])
        written += 1
        job.progress(written, None, "frames", "mending")
        try:
            await site.reopen(name)
        except FarshoreError as again:
            if _place(again) == at:
                raise
            site.damaged[name] = again
    site.events.emit("group.mended", group=name, frames=written)
    return written


def _place(error: FarshoreError) -> Cut | None:
    try:
        return parse_cut(error.position)
    except FarshoreError:
        return None


async def _write(site: Site, name: str, frame: Frame) -> None:
    timeline, position = frame.prefix.timeline, frame.prefix.position
    file, start = _file(site, name, timeline, position)
    try:
        file.pwrite(frame.raw, position - start)
        synced: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
        site.disk.start_sync([file], [], synced.set_result)
        error = await asyncio.shield(synced)
        if error is not None:
            raise error
    finally:
        file.close()


def _file(site: Site, name: str, timeline: int, position: int) -> tuple[DiskFile, int]:
    """The open file that a frame belongs in, made anew if it has gone, and the position where it begins."""
    directory = f"groups/{name}"
    names = site.disk.list_directory(f"{directory}/{timeline_directory(timeline)}")
    starts = [start for start in map(start_from_name, names) if start is not None and start <= position]
    if starts:
        file = site.disk.open(f"{directory}/{segment_path(timeline, max(starts))}")
        if position < max(starts) + file.size():
            return file, max(starts)
        file.close()
    site.disk.make_directory(f"{directory}/{timeline_directory(timeline)}")
    return site.disk.preallocate(f"{directory}/{segment_path(timeline, position)}", SEGMENT_BYTES), position
