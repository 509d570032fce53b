"""How full a group's journal is, in stages, so that nobody is surprised by the last one.

    normal     less than 60 % of the capacity is held
    warning    from 60 %: operators are told, with the time that is left at the rate of writing
    throttle   from 75 %, if configured: hosts are slowed down
    detach     from 85 %: the slowest user of journal frames is asked to let go
    full       there is no room for another segment: hosts get ENOSPC

What counts is what is *held*: bytes that reclaim cannot free whatever it does. A stage is left 5 % below
where it is entered, and entered one after the other, so that each is seen.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

STAGE_LEFT_BELOW = 0.05
RATE_OVER_S = 30.0


class Stage(Enum):
    """A stage of journal pressure."""

    NORMAL = "normal"
    WARNING = "warning"
    THROTTLE = "throttle"
    DETACH = "detach"
    FULL = "full"


_ORDER = tuple(Stage)
_ENTERED_AT = {Stage.WARNING: 0.60, Stage.THROTTLE: 0.75, Stage.DETACH: 0.85}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """The journal at one moment. `held_bytes` cannot be truncated; `capacity_bytes` is what the journal may
    take with the room that there is; `written` the position written to; `lacking`: a segment could not be
    made."""

    monotonic_s: float
    held_bytes: int
    capacity_bytes: int
    written: int
    lacking: bool


class Pressure:
    """The stage, and how long until the journal is full."""

    def __init__(self, *, throttle: bool) -> None:
        self.stage = Stage.NORMAL
        self.time_to_full_s: float | None = None
        self._stages = tuple(s for s in _ORDER if throttle or s is not Stage.THROTTLE)
        self.room_bytes = 0  # up to the stage `detach`
        self._rate_bytes_s = 0.0
        self._last: Measure | None = None

    def step(self, measure: Measure) -> list[Stage]:
        """Take in a measure; the stages entered, in order: more than one if several were passed at once."""
        self._follow_rate(measure)
        target = self._target(measure)
        before, after = self._stages.index(self.stage), self._stages.index(target)
        self.stage = target
        self.room_bytes = max(
            0, round(_ENTERED_AT[Stage.DETACH] * measure.capacity_bytes) - measure.held_bytes
        )
        rate = self._rate_bytes_s
        room = max(0, measure.capacity_bytes - measure.held_bytes)
        self.time_to_full_s = room / rate if rate > 0 and target is not Stage.NORMAL else None
        if after > before:
            return list(self._stages[before + 1 : after + 1])
        return [target] if after < before else []

    def _target(self, measure: Measure) -> Stage:
        if measure.lacking:
            return Stage.FULL
        held = measure.held_bytes / measure.capacity_bytes if measure.capacity_bytes > 0 else 1.0
        target = Stage.NORMAL
        for stage in self._stages:
            entered_at = _ENTERED_AT.get(stage)
            if entered_at is None:
                continue
            inside = self._stages.index(self.stage) >= self._stages.index(stage)
            if held >= entered_at - (STAGE_LEFT_BELOW if inside else 0.0):
                target = stage
        return target

    def _follow_rate(self, measure: Measure) -> None:
        """A mean that forgets: a sample counts by the time that it covers."""
        last = self._last
        if last is not None and measure.monotonic_s > last.monotonic_s:
            took_s = measure.monotonic_s - last.monotonic_s
            rate = max(0, measure.written - last.written) / took_s
            weight = min(1.0, took_s / RATE_OVER_S)
            self._rate_bytes_s += (rate - self._rate_bytes_s) * weight
        if last is None or measure.monotonic_s > last.monotonic_s:
            self._last = measure
