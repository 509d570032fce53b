"""What happened at this site, for operators: a bounded list with numbers, and the same lines in the log.

An event is a short word (`pair.state`) with fields. ERROR means that a person must look.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import structlog

from engine.ports.clock import Clock
from protocol.cut_text import time_text
from protocol.limits import EVENTS_KEPT_MAX

log = structlog.get_logger()

ERRORS = frozenset(
    {
        "journal.failed",
        "group.damaged",
        "group.failed",
        "damage.found",
        "hook.thaw_failed",
        "peer.session_failed",
        "peer.set_aside",
        "row.set_aside",
    }
)
WARNINGS = frozenset(
    {
        "checkpoint.failed",
        "pair.session_ended",
        "pair.reset",
        "pair.fallback",
        "pair.refusing",
        "pair.sync_put_off",
        "journal.no_space",
        "journal.pressure",
        "journal.holder_detached",
        "fold.failed",
        "drill.failed",
        "index.compact_failed",
        "schedule.failed",
        "hook.failed",
        "hook.thawed",
        "job.failed",
        "job.not_saved",
        "damage.not_saved",
        "journal.torn_tail",
        "timeline.tail_kept",
        "volume.restore_failed",
    }
)
WARNING_STATES = frozenset({"suspended by error", "diverged"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line. `level` is info, warning or error."""

    seq: int
    utc_ns: int
    level: str
    kind: str
    group: str
    subject: str
    position: str
    message: str

    def as_dict(self) -> dict[str, object]:
        """The shape of command `events`."""
        return {
            "seq": self.seq,
            "time": time_text(self.utc_ns),
            "level": self.level,
            "kind": self.kind,
            "group": self.group or None,
            "object": self.subject,
            "position": self.position,
            "message": self.message,
        }


class EventLog:
    """The newest `EVENTS_KEPT_MAX` events."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT_MAX)
        self._last = 0
        self._news = asyncio.Event()

    def emit(self, kind: str, **fields: object) -> None:
        """Add an event. `group`, `object` and `position` are fields of their own; the rest is its message."""
        level = "info"
        if kind in ERRORS:
            level = "error"
        elif kind in WARNINGS or fields.get("state") in WARNING_STATES:
            level = "warning"
        self._last += 1
        named = {key: str(fields.get(key, "")) for key in ("group", "object", "position")}
        message = ", ".join(f"{k} {v}" for k, v in fields.items() if k not in named and v != "")
        self._events.append(
            Event(
                seq=self._last,
                utc_ns=self._clock.utc_ns(),
                level=level,
                kind=kind,
                group=named["group"],
                subject=named["object"] or named["group"],
                position=named["position"],
                message=message,
            )
        )
        getattr(log, level)(kind, **fields)
        self._news.set()
        self._news = asyncio.Event()

    def since(self, seq: int | None, limit: int) -> tuple[list[Event], int, bool]:
        """Events after number `seq` (None: the newest), the number to ask from next, and whether some were
        dropped in between."""
        if seq is None:
            found = list(self._events)[-limit:]
            return found, self._last, False
        missed = bool(self._events) and self._events[0].seq > seq + 1
        found = [event for event in self._events if event.seq > seq][:limit]
        return found, found[-1].seq if found else max(seq, 0), missed

    async def wait_for_news(self, timeout_s: float) -> None:
        """Until something is added, or the time is over."""
        news = self._news
        try:
            await asyncio.wait_for(news.wait(), timeout_s)
        except TimeoutError:
            return
