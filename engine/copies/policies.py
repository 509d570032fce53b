"""A group's policy: when it is backed up, which backups stay, and its any-point window, as its journal says.

The newest `PolicySet` on the head's lineage counts, at both sites: a site that takes over goes on with it.

Pure: no I/O.
"""

from __future__ import annotations

from engine.group.settings import GroupSettings
from engine.history.timelines import Span, holds
from protocol.events import NO_POLICY, PolicySet


class Policies:
    """Every policy that was ever set."""

    def __init__(self) -> None:
        self._set: dict[tuple[int, int], tuple[int, PolicySet]] = {}

    def apply(self, timeline: int, position: int, utc_ns: int, record: PolicySet) -> None:
        """Take in a record; seeing the same one again is fine."""
        self._set[timeline, position] = (utc_ns, record)

    def forget(self, timeline: int, position: int) -> None:
        """Leave out what a timeline says from a position on."""
        self._set = {
            place: each for place, each in self._set.items() if place[0] != timeline or place[1] < position
        }

    @property
    def ever_set(self) -> bool:
        """Whether any was, on any timeline."""
        return bool(self._set)

    def at(self, spans: list[Span]) -> tuple[int, PolicySet]:
        """The policy at the end of a lineage, and when it was set in UTC nanoseconds: 0 if none ever was."""
        found = [(place[1], each) for place, each in self._set.items() if holds(spans, *place)]
        return max(found, key=lambda row: row[0])[1] if found else (0, NO_POLICY)

    def window(self, spans: list[Span], settings: GroupSettings) -> tuple[float, int]:
        """How far back any moment can be read, in seconds and in bytes of journal: as the policy says, else
        as the site is set."""
        _, policy = self.at(spans)
        window_s = settings.window_s if policy.window_s < 0 else float(policy.window_s)
        return window_s, policy.window_bytes or settings.window_bytes
