"""Reasons to hold a group back, each kept under the name of who says it: one that lets go never opens what
another still keeps shut.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


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
