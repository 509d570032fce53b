"""Whether hosts may be served and anything be written: one rule, asked before a host is let in and, of those
that are in, with every change.

A group is held back by reasons, each kept under the name of who says it: one that lets go never opens what
another still keeps shut.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from engine.group.site_state import Role
from protocol.errors import WrongState
from protocol.positions import Cut

if TYPE_CHECKING:
    from engine.group.group import Group


class Holder(Enum):
    """Who may hold a group back; the first of those that do is the one that is shown."""

    FENCED = "fenced"  # another site writes by a newer authority
    TAKEOVER = "takeover"  # this site's role is to write, and its timeline is not begun yet
    INSTALL = "install"  # a base is being put in place
    CHOICE = "choice"  # an operator chose the peer's history, and not all of it is here
    OLDER = "older"  # this site once held more than it does (engine.group.turned_back)
    START = "start"  # the peer was not asked yet for what may be lacking


class Holds:
    """Reasons by holder. `on_change` is called when the first one comes and when the last one goes."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._reasons: dict[Holder, str] = {}
        self._on_change = on_change

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def __contains__(self, holder: Holder) -> bool:
        return holder in self._reasons

    @property
    def reason(self) -> str:
        """Why the group is held back; empty if it is not."""
        return next((self._reasons[holder] for holder in Holder if holder in self._reasons), "")

    def put(self, holder: Holder, reason: str) -> None:
        """Hold the group back, or say another reason for it."""
        first = not self._reasons
        self._reasons[holder] = reason
        if first:
            self._on_change()

    def lift(self, *holders: Holder) -> None:
        """These let go; one that held nothing is fine."""
        gone = [self._reasons.pop(holder, None) for holder in holders]
        if any(gone) and not self._reasons:
            self._on_change()


def refusal(group: Group) -> WrongState | None:
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
    if group.handed_to not in ("", group.site):
        return WrongState(
            f"group {group.name} was handed over to the other site",
            subject=group.name,
            position=str(group.end),
            next_step=f"`farshore pair show {group.name}` says where it is written",
        )
    return None


def given_to(group: Group) -> str:
    """The id of the site to which the head's last event hands the group over. Nothing if it does not, or if
    this site is said to give the group away by an event that another one brought (docs/decisions/0020): it
    said no such thing in this life, as a hand-over of its own is durable here before any other site sees
    it."""
    to = group.promises.handed_at(group.end)
    if to in ("", group.site):
        return to
    own = group.timelines.get(group.head.timeline).writer == group.site
    return to if own and not group.state.followed(group.name, group.head.timeline) else ""


def took_over(group: Group) -> bool:
    """Whether this site is to write a group whose head is still another site's timeline: what it writes first
    must then outrank that site."""
    if not group.head or group.timelines.get(group.head.timeline).writer == group.site:
        return False
    return group.state.group(group.name).role is Role.PRIMARY
