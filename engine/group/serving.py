"""Whether hosts may be served and anything be written: one rule, asked before a host is let in and, of those
that are in, with every change.
"""

from __future__ import annotations

from engine.group.core import GroupCore
from protocol.errors import WrongState
from protocol.positions import Cut


def refusal(group: GroupCore) -> WrongState | None:
    """Why nothing may be written here, whatever this site's role; None if nothing stands against it."""
    if group.failed:
        return WrongState(
            f"group {group.name} has stopped: {group.failed}",
            subject=group.name,
            position=str(Cut(group.head.timeline, group.writer.durable)),
            next_step="check the disk, then restart the site's daemon",
        )
    if group.holds:
        return WrongState(
            f"group {group.name} {group.holds.reason}",
            subject=group.name,
            position=str(group.end),
            next_step=f"`farshore pair show {group.name}` says how far that is",
        )
    if given_to(group) not in ("", group.site):
        return WrongState(
            f"group {group.name} was handed over to the other site",
            subject=group.name,
            position=str(group.end),
            next_step=f"`farshore pair show {group.name}` says where it is written",
        )
    return None


def require_serving(group: GroupCore) -> None:
    """WrongState if there is a refusal."""
    why = refusal(group)
    if why is not None:
        raise why


def require_writing(group: GroupCore) -> None:
    """WrongState where another site writes: what this one said then would part the two histories."""
    if not group.writes:
        raise WrongState(
            f"group {group.name} is not written here any more",
            subject=group.name,
            position=str(group.end),
            next_step=f"`farshore pair show {group.name}` says where it is written",
        )


def given_to(group: GroupCore) -> str:
    """The id of the site to which the head's last event hands the group over. Nothing if it does not, or if
    this site is said to give the group away by an event that another one brought (docs/decisions/0020): it
    said no such thing in this life, as a hand-over of its own is durable here before any other site sees
    it."""
    to = group.promises.handed_at(group.end)
    if to in ("", group.site):
        return to
    own = group.timelines.get(group.head.timeline).writer == group.site
    return to if own and not group.state.followed(group.name, group.head.timeline) else ""


def took_over(group: GroupCore) -> bool:
    """Whether this site is to write a group whose head is still another site's timeline: what it writes first
    must then outrank that site."""
    if not group.head or group.timelines.get(group.head.timeline).writer == group.site:
        return False
    return group.primary
