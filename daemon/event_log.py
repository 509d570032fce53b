"""What happened at this site, for operators: a bounded list with numbers, and the same lines in the log.

An event is a short word (`pair.state`) with fields. ERROR means that a person must look; one with `resolved`
says that what an earlier one of its kind, group and object reported is over. A file keeps more of
them than the list, over restarts (`daemon.event_file`): numbers go on, and are never given twice.

Nobody can push out what matters: of the kinds that a peer can cause at will only a few are said one by one,
the others counted, and once the list is full a kind that has its share displaces its own oldest events.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Protocol

import structlog

from engine.acting import actor
from engine.ports.clock import Clock
from engine.repeats import Repeats
from protocol.commands.event import EventInfo, Level
from protocol.cut_text import time_text
from protocol.limits import (
    EVENT_TEXT_CHARS_MAX,
    EVENTS_KEPT_MAX,
    EVENTS_OF_A_KIND_MIN,
    EVENTS_REPEATED_MAX,
    EVENTS_REPEATED_OBJECTS_MAX,
    EVENTS_REPEATED_SPAN_S,
    EVENTS_UNKEPT_MAX,
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
        "peer.silent",
        "pair.diverged",
        "pair.suspended",
        "backup.missed",
        "cert.ends_soon",
        "row.set_aside",
        "group.missing",
        "nbd.tls_unusable",
        "group.turned_back",
        "peer.two_daemons",
        "timeline.turned_back",
    }
)
WARNINGS = frozenset(
    {
        "backup.old",
        "base.delayed",
        "base.not_dropped",
        "base.outlasted",
        "cert.ends",
        "disk.filling",
        "drill.missed",
        "drill.old",
        "group.taken_over",
        "journal.filling",
        "metrics.failed",
        "notify.dropped",
        "notify.failing",
        "pair.lagging",
        "checkpoint.failed",
        "clock.behind_journal",
        "group.fenced",
        "group.not_online",
        "group.take_over_failed",
        "hosts.too_many",
        "pair.not_remembered",
        "site.not_reloaded",
        "peer.clock_skew",
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
        "events.not_kept",
        "events.not_read",
        "index.compact_failed",
        "schedule.failed",
        "seed.not_removed",
        "seed.set_aside",
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
# What a peer, or a host, can cause as often as it likes.
FROM_OUTSIDE = frozenset(
    {
        "hosts.too_many",
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
# The end of what has a kind of its own: as important as that was, and `resolved`.
ENDS: Mapping[str, str] = {
    "clock.caught_up": "clock.behind_journal",
    "damage.mended": "damage.found",
    "group.came_back": "group.turned_back",
    "group.mended": "group.damaged",
    "pair.accepting": "pair.refusing",
    "pair.sync_again": "pair.fallback",
    "peer.clock_right": "peer.clock_skew",
}
WARNING_STATES = frozenset({"suspended by error", "diverged"})
STOPPED = "site.stopped"
# Fields that an event has by themselves.
_NAMED = ("group", "object", "position", "site")


class EventKeeper(Protocol):
    """What keeps events when this process has ended."""

    def keep(self, event: EventInfo) -> None:
        """Keep one. Never blocks or raises."""

    def newest(self, limit: int) -> list[EventInfo]:
        """The newest that were kept, oldest first. OSError."""

    def after(self, seq: int, limit: int) -> list[EventInfo]:
        """Those with a higher number, oldest first. OSError."""

    def close(self) -> None:
        """Keep what was given, if it goes at once."""


def level_of(kind: str, fields: Mapping[str, object]) -> Level:
    """What is over needs nobody any more."""
    if fields.get("resolved") is True:
        return "info"
    if kind in ERRORS:
        return "error"
    return "warning" if kind in WARNINGS or fields.get("state") in WARNING_STATES else "info"


def weight_of(event: EventInfo) -> Level:
    """The level of what an event is about: one that says that something is over has that one's."""
    fields = {key: value for key, value in event.fields.items() if key != "resolved"}
    return level_of(ENDS.get(event.kind, event.kind), fields)


class EventLog:
    """The newest `EVENTS_KEPT_MAX` events, and those that `keeper` has."""

    def __init__(self, clock: Clock, keeper: EventKeeper | None = None) -> None:
        self._clock = clock
        self._keeper = keeper
        self._events: dict[int, EventInfo] = {}  # by number, oldest first
        self._of_kind: dict[str, deque[int]] = {}
        self.counts: dict[Level, int] = {"info": 0, "warning": 0, "error": 0}  # by level, since the start
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
        if (kind in FROM_OUTSIDE or "site" in fields) and self._is_repeated(kind, fields):
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
        if kind in ENDS and not fields.get("left"):  # places that could not be mended
            fields["resolved"] = True
        level = level_of(kind, fields)
        self._last += 1
        self.counts[level] += 1
        named = {key: str(fields.get(key, "")) for key in _NAMED}
        rest = {key: value for key, value in fields.items() if key not in named and value != ""}
        event = EventInfo(
            seq=self._last,
            time=time_text(self._clock.utc_ns()),
            level=level,
            kind=kind,
            group=named["group"] or None,
            object=named["object"] or named["group"],
            position=named["position"],
            message=", ".join(f"{key} {value}" for key, value in rest.items()),
            by=actor(),
            fields={key: _plain(value) for key, value in rest.items()},
            resolved=fields.get("resolved") is True,
            site=named["site"] or None,
        )
        self._take(event)
        if self._keeper is not None:
            self._keeper.keep(event)
        said = {"by": event.by, **fields} if event.by else fields
        getattr(log, level)(kind, **said)
        self._news.set()
        self._news = asyncio.Event()

    def _take(self, event: EventInfo) -> None:
        self._events[event.seq] = event
        self._of_kind.setdefault(event.kind, deque()).append(event.seq)
        if len(self._events) > EVENTS_KEPT_MAX:
            self._drop_one(event.kind)

    def take_up(self) -> None:
        """Go on after what was kept. Numbers that an earlier run may have given without their being kept are
        left out: whoever follows would take what has them now for known."""
        if self._keeper is None:
            return
        try:
            found = self._keeper.newest(EVENTS_KEPT_MAX)
        except OSError as error:
            self.emit("events.not_read", error=str(error))
            return
        for event in found:
            if event.seq > self._last:
                self._take(event)
                self._last = event.seq
        if found:
            self._dropped = max(self._dropped, found[0].seq - 1)
            if found[-1].kind != STOPPED:
                self._last += EVENTS_UNKEPT_MAX

    def close(self) -> None:
        """The site has stopped: keep what there is."""
        self.emit(STOPPED)
        if self._keeper is not None:
            self._keeper.close()

    def _drop_one(self, kind: str) -> None:
        """The oldest of this kind, if that has its share; else of the kind that has most."""
        if len(self._of_kind[kind]) <= EVENTS_OF_A_KIND_MIN:
            kind = max(self._of_kind, key=lambda each: len(self._of_kind[each]))
        seq = self._of_kind[kind].popleft()
        del self._events[seq]
        self._dropped = max(self._dropped, seq)

    async def look_up(self, seq: int | None, limit: int) -> tuple[list[EventInfo], int, bool]:
        """As `since`, also of what only the keeper has any more."""
        if seq is None or self._keeper is None or seq >= self._dropped:
            return self.since(seq, limit)
        try:
            kept = await asyncio.to_thread(self._keeper.after, seq, limit)
        except OSError as error:
            self.emit("events.not_read", error=str(error))
            kept = []
        if not kept or kept[-1].seq <= seq:
            return self.since(seq, limit)
        return kept, kept[-1].seq, kept[0].seq > seq + 1

    @property
    def last(self) -> int:
        """The newest one's number; 0: there is none."""
        return self._last

    def since(self, seq: int | None, limit: int) -> tuple[list[EventInfo], int, bool]:
        """Events after number `seq` (None: the newest), the number to ask from next, and whether some were
        dropped in between."""
        if seq is None:
            found = list(self._events.values())[-limit:]
            return found, self._last, False
        found = list(self._newer(seq, limit))
        return found, found[-1].seq if found else max(seq, 0), self._dropped > seq

    def newer(self, seq: int) -> list[EventInfo]:
        """All that are here with a higher number, oldest first."""
        newest_first = takewhile(lambda event: event.seq > seq, reversed(self._events.values()))
        return list(newest_first)[::-1]

    def before(self, span_s: float) -> int:
        """The number of the newest event that is at least so old; 0: there is none."""
        until = time_text(max(0, self._clock.utc_ns() - int(span_s * 1e9)))
        return next((event.seq for event in reversed(self._events.values()) if event.time <= until), 0)

    def stands(self, kind: str, group: str, site: str | None) -> bool:
        """Whether that is wrong with a group, as a peer said last; None: this site."""
        about = (kind, group or None, site)
        said = (e for e in reversed(self._events.values()) if (e.kind, e.group, e.site) == about)
        newest = next(said, None)
        return newest is not None and not newest.resolved

    def _newer(self, seq: int, limit: int) -> Iterator[EventInfo]:
        for event in self._events.values():
            if event.seq > seq and limit > 0:
                limit -= 1
                yield event

    async def wait_for_news(self, timeout_s: float) -> None:
        """Until something is added, or the time is over."""
        news = self._news
        # Not `wait_for`: of Python 3.11 it loses a cancellation that comes with the news, and who stops the
        # task that waits here would wait for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await news.wait()


def _plain(value: object) -> str | int | float | bool | None:
    """A field as a file and a reply can carry it."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    return str(value)[:EVENT_TEXT_CHARS_MAX]
