"""What happened at this site, for operators: a bounded list with numbers, and the same lines in the log.

An event is a short word (`pair.state`) with fields. ERROR means that a person must look.

Nobody can push out what matters: of the kinds that a peer can cause at will only a few are said one by one,
the others counted, and once the list is full a kind that has its share displaces its own oldest events.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from engine.ports.clock import Clock
from engine.repeats import Repeats
from protocol.commands.event import EventInfo, Level
from protocol.cut_text import time_text
from protocol.limits import (
    EVENTS_KEPT_MAX,
    EVENTS_OF_A_KIND_MIN,
    EVENTS_REPEATED_MAX,
    EVENTS_REPEATED_OBJECTS_MAX,
    EVENTS_REPEATED_SPAN_S,
)

log = structlog.get_logger()

ERRORS = frozenset(
    {
        "journal.failed",
        "journal.unread",
        "group.damaged",
        "group.failed",
        "damage.found",
        "hook.thaw_failed",
        "hosts.cut_off",
        "peer.claim_refused",
        "peer.session_failed",
        "peer.set_aside",
        "row.set_aside",
        "group.missing",
        "group.turned_back",
        "peer.two_daemons",
        "timeline.turned_back",
    }
)
WARNINGS = frozenset(
    {
        "checkpoint.failed",
        "group.fenced",
        "group.not_online",
        "group.take_over_failed",
        "pair.not_remembered",
        "pair.session_ended",
        "pair.strict_not_said",
        "pair.reset",
        "pair.fallback",
        "pair.refusing",
        "pair.sync_put_off",
        "journal.no_space",
        "journal.pressure",
        "journal.holder_detached",
        "lock.defied",
        "lock.not_noted",
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
        "witness.damaged",
        "witness.foreign",
        "witness.not_written",
    }
)
# What a peer can cause as often as it likes.
FROM_OUTSIDE = frozenset(
    {
        "journal.unread",
        "peer.two_daemons",
        "pair.reset",
        "pair.session",
        "pair.session_ended",
        "peer.bad_message",
        "peer.claim_refused",
        "peer.session_failed",
    }
)
WARNING_STATES = frozenset({"suspended by error", "diverged"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line. `level` is info, warning or error."""

    seq: int
    utc_ns: int
    level: Level
    kind: str
    group: str
    subject: str
    position: str
    message: str

    def info(self) -> EventInfo:
        """The event as replies have it."""
        return EventInfo(
            seq=self.seq,
            time=time_text(self.utc_ns),
            level=self.level,
            kind=self.kind,
            group=self.group or None,
            object=self.subject,
            position=self.position,
            message=self.message,
        )


class EventLog:
    """The newest `EVENTS_KEPT_MAX` events."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: dict[int, Event] = {}  # by number, oldest first
        self._of_kind: dict[str, deque[int]] = {}
        self._last = 0
        self._dropped = 0  # the newest one that is gone
        self._news = asyncio.Event()
        self._repeats: Repeats[tuple[str, str]] = Repeats(
            clock.call_later,
            most=EVENTS_REPEATED_MAX,
            span_s=EVENTS_REPEATED_SPAN_S,
            on_left_out=self._say_left_out,
        )
        self._left_out: dict[tuple[str, str], dict[str, object]] = {}  # the last one's fields

    def emit(self, kind: str, **fields: object) -> None:
        """Add an event. `group`, `object` and `position` are fields of their own; the rest is its message."""
        if kind in FROM_OUTSIDE and self._is_repeated(kind, fields):
            return
        self._add(kind, fields)

    def _is_repeated(self, kind: str, fields: dict[str, object]) -> bool:
        """Whether it is counted only; the first of a span begins it, and its end says the number."""
        key = kind, str(fields.get("object", "")) + str(fields.get("peer", "")) + str(fields.get("group", ""))
        if key not in self._repeats and len(self._repeats) >= EVENTS_REPEATED_OBJECTS_MAX:
            key = kind, ""
        if self._repeats.fits(key):
            return False
        self._left_out[key] = fields
        return True

    def _say_left_out(self, key: tuple[str, str], count: int) -> None:
        self._add(key[0], self._left_out.pop(key) | {"and_as_many_before": count - 1})

    def _add(self, kind: str, fields: dict[str, object]) -> None:
        level: Level = "info"
        if kind in ERRORS:
            level = "error"
        elif kind in WARNINGS or fields.get("state") in WARNING_STATES:
            level = "warning"
        self._last += 1
        named = {key: str(fields.get(key, "")) for key in ("group", "object", "position")}
        message = ", ".join(f"{k} {v}" for k, v in fields.items() if k not in named and v != "")
        self._events[self._last] = Event(
            seq=self._last,
            utc_ns=self._clock.utc_ns(),
            level=level,
            kind=kind,
            group=named["group"],
            subject=named["object"] or named["group"],
            position=named["position"],
            message=message,
        )
        self._of_kind.setdefault(kind, deque()).append(self._last)
        if len(self._events) > EVENTS_KEPT_MAX:
            self._drop_one(kind)
        getattr(log, level)(kind, **fields)
        self._news.set()
        self._news = asyncio.Event()

    def _drop_one(self, kind: str) -> None:
        """The oldest of this kind, if that has its share; else of the kind that has most."""
        if len(self._of_kind[kind]) <= EVENTS_OF_A_KIND_MIN:
            kind = max(self._of_kind, key=lambda each: len(self._of_kind[each]))
        seq = self._of_kind[kind].popleft()
        del self._events[seq]
        self._dropped = max(self._dropped, seq)

    def since(self, seq: int | None, limit: int) -> tuple[list[Event], int, bool]:
        """Events after number `seq` (None: the newest), the number to ask from next, and whether some were
        dropped in between."""
        if seq is None:
            found = list(self._events.values())[-limit:]
            return found, self._last, False
        found = list(self._newer(seq, limit))
        return found, found[-1].seq if found else max(seq, 0), self._dropped > seq

    def _newer(self, seq: int, limit: int) -> Iterator[Event]:
        for event in self._events.values():
            if event.seq > seq and limit > 0:
                limit -= 1
                yield event

    async def wait_for_news(self, timeout_s: float) -> None:
        """Until something is added, or the time is over."""
        news = self._news
        try:
            await asyncio.wait_for(news.wait(), timeout_s)
        except TimeoutError:
            return
