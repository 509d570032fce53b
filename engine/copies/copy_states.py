"""The state of a copy at this site, of all that is known of it."""

from __future__ import annotations

from engine.copies.copies import Copy, CopyState
from engine.group.group import Group


def state_of(group: Group, copy: Copy) -> CopyState:
    """A copy's state at this site. Its mark must be on the head's lineage."""
    if copy.position >= group.writer.durable:
        return CopyState.PENDING
    if copy.cut.timeline not in group.timelines or not group.kept.readable(copy.cut):
        return CopyState.EXPIRED
    mark = group.copies.mark_of(copy.id)
    if mark.damage:
        return CopyState.DAMAGED
    return CopyState.VERIFIED if mark.verified_utc_ns else CopyState.AVAILABLE
