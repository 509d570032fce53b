"""Whether the journal that is found leads to where it was left: asked when a group is opened."""

from __future__ import annotations

from engine.group.core import GroupCore
from engine.history.bases import base_at
from engine.journal.format import timeline_directory
from engine.journal.reader import BadFrame, require_digest
from engine.journal.recovery import name_stray
from protocol.errors import Corruption
from protocol.frames import FramePrefix
from protocol.positions import Cut


def check_reaches(group: GroupCore, timeline: int, position: int, digest: bytes) -> FramePrefix | None:
    """The frame that ends there, None if it has gone. Corruption unless the journal still leads, prefix by
    prefix, to where the checkpoint left it: an index that is ahead of its journal belongs to another one, or
    the file was cut or put back. Bytes further down are checked when they are read."""
    base = base_at(group.timelines, Cut(timeline, position))
    if base is not None:
        require_digest(digest, base.digest, timeline, position)
        return None
    anchor = group.reader.anchor(timeline, position)
    if anchor is not None:
        require_digest(digest, anchor.digest, timeline, position)
        return None
    before = group.reader.frame_before(timeline, position)
    if before is None:
        raise does_not_reach(group, Cut(timeline, position), "checkpoint")
    require_digest(digest, before.digest, timeline, position)
    try:
        next(iter(group.reader.frames(timeline, before.position, position, None)))
    except BadFrame as error:
        raise does_not_reach(group, Cut(timeline, position), "checkpoint") from error
    return before


def does_not_reach(group: GroupCore, cut: Cut, what: str) -> Corruption:
    error = Corruption(
        f"the journal is damaged or cut before its {what} at {cut}",
        subject=timeline_directory(cut.timeline),
        position=str(cut),
        next_step="nothing was changed; restore the file, or read the volumes at the peer",
    )
    return name_stray(group.reader, group.segments, cut.timeline, error)
