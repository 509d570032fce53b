"""Says when a journal's times are ahead of this site's clock.

Times in a journal never go back. After the writer's clock was ahead and went back, or where this site's is
behind, they stand still until the clock has come to them: what was written meanwhile cannot be told apart
by time.
"""

from __future__ import annotations

from engine.group.core import GroupCore
from protocol.cut_text import time_text
from protocol.limits import CLOCK_SKEW_S


def ahead_s(group: GroupCore) -> float:
    """By how many seconds the newest frame's time is yet to come; 0 if it is not, or by no more than clocks
    differ."""
    found = (group.head.utc_ns - group.clock.utc_ns()) / 1e9
    return found if found > CLOCK_SKEW_S else 0.0


class JournalTimes:
    """Those of all groups of a site; look at each now and then."""

    def __init__(self) -> None:
        self._ahead: set[str] = set()

    def look(self, group: GroupCore) -> None:
        """Leave an event if it has begun, or is over."""
        behind_s, name = ahead_s(group), group.name
        if behind_s and name not in self._ahead:
            self._ahead.add(name)
            until = time_text(group.head.utc_ns)
            said = {"behind_s": round(behind_s, 1), "until": until, "position": str(group.end)}
            group.emit("clock.behind_journal", group=name, **said)
        elif not behind_s and name in self._ahead:
            self._ahead.discard(name)
            group.emit("clock.caught_up", group=name, position=str(group.end))
