"""What a group's pair has yet to do at this site: at most one pending call of each kind.

Whatever is a reason to try again may come a thousand times while a disk refuses; each time costs commits and
an event. So the reasons share one timer, which goes with what it was for.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from engine.group.core import GroupCore
from engine.ports.clock import Timer

RETRY_S = 1.0


class Due(Enum):
    """What is to be done."""

    BEGIN = "begin to be written here"
    HAND_OVER = "take a hand-over that arrived"
    STRICT = "say that the strict mode is in force"


class PairTimers:
    """By group and kind."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, Due], Timer] = {}

    def soon(self, group: GroupCore, due: Due, work: Callable[[], None]) -> None:
        """Call `work` once what is ready now has run, unless such a call is pending: one that failed and is
        to be tried again comes no sooner for that."""
        if (group.name, due) not in self._pending:
            self._pending[group.name, due] = group.clock.call_soon(lambda: self._run(group, due, work))

    def again(self, group: GroupCore, due: Due, work: Callable[[], None]) -> None:
        """Call `work` after `RETRY_S`, in place of what is pending."""
        self.stop(group, due)
        self._pending[group.name, due] = group.clock.call_later(RETRY_S, lambda: self._run(group, due, work))

    def stop(self, group: GroupCore, due: Due) -> None:
        """Forget it."""
        timer = self._pending.pop((group.name, due), None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Forget all, of every group."""
        for timer in self._pending.values():
            timer.cancel()
        self._pending.clear()

    def _run(self, group: GroupCore, due: Due, work: Callable[[], None]) -> None:
        del self._pending[group.name, due]
        work()
