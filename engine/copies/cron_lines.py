"""Cron lines in a time zone: five fields, as Debian's cron reads them (the library cronsim).

Where the zone's clock is set, a line that names hours gives each of its times once:

    a time that the clock leaves out     the moment at which the clock goes on; several of them: one slot
    a time that it shows twice           the first of the two

A line for every hour (`0 * * * *`, `*/15 * * * *`) is about distances rather than times of day. It goes by
what the clock shows: an hour that comes twice has its slots twice, one that is left out has none.

cronsim takes a line for one or the other by whether it begins with a star, so that `30 */2 * * *` would lose
a slot in spring; it is given the hours written out. Begun in the second showing of an hour, it names slots of
the first: what does not come after the time that was asked for is left out.

Pure, but for the tz database: times come in as numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from engine.ports.time_zones import time_zone
from protocol.cut_text import NS_PER_S
from protocol.errors import UsageError

EVERY_HOUR = frozenset(range(24))
# How far back the newest slot may lie: 29 February on a certain weekday comes every 28 years, or 40.
_FIRST_SPAN_NS = 3600 * NS_PER_S
_SPAN_MAX_NS = 64 * 366 * 86_400 * NS_PER_S
_LINES_MAX = 512
_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)
_FIELDS = (
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of the month", "1-31 or L"),
    ("month", "1-12 or JAN-DEC"),
    ("day of the week", "0-7 or SUN-SAT"),
)
_DAY = 2
_FIELD = re.compile(r"[0-9A-Za-z*,/#-]+", re.ASCII)


class CronLine:
    """The slots of one line, in nanoseconds of UTC. It remembers between which two it was asked last."""

    def __init__(self, line: str, zone: ZoneInfo) -> None:
        self._line = line
        self._zone = zone
        self._between = (0, 0)

    def after(self, utc_ns: int) -> Iterator[int]:
        """Slots after a time, ascending; none any more after 50 years without one."""
        start = datetime.fromtimestamp(utc_ns // NS_PER_S, self._zone)
        newest_ns = utc_ns
        for moment in CronSim(self._line, start):
            slot_ns = int(moment.timestamp()) * NS_PER_S
            if slot_ns > newest_ns:
                newest_ns = slot_ns
                yield slot_ns

    def next(self, utc_ns: int) -> int | None:
        """The first slot after a time."""
        last_ns, next_ns = self._between
        return next_ns if last_ns <= utc_ns < next_ns else next(self.after(utc_ns), None)

    def last(self, utc_ns: int) -> int | None:
        """The newest slot at or before a time."""
        last_ns, next_ns = self._between
        if last_ns <= utc_ns < next_ns:
            return last_ns
        span_ns = _FIRST_SPAN_NS
        while span_ns <= _SPAN_MAX_NS:
            slots = list(takewhile(lambda slot_ns: slot_ns <= utc_ns, self.after(utc_ns - span_ns)))
            if slots:
                self._between = slots[-1], self.next(utc_ns) or 0
                return slots[-1]
            span_ns *= 2
        return None


@lru_cache(maxsize=_LINES_MAX)
def cron_line(text: str, zone: str) -> CronLine:
    """The slots of a line. UsageError where it is none, says no day that ever comes, or the zone is not
    known."""
    fields = list(re.finditer(r"\S+", text))
    if len(fields) != len(_FIELDS):
        raise UsageError(
            f"a cron line has five fields (minute, hour, day, month, day of the week), {text!r} has "
            f"{len(fields)}",
            subject=text,
            next_step="write it as '30 2 * * *': every day at 02:30",
        )
    for number, field in enumerate(fields):
        _check_field(text, number, field)
    words = [field[0] for field in fields]
    try:
        sim = CronSim(" ".join(words), _SOME_DAY)
        next(sim)
    except (CronSimError, StopIteration) as error:
        days = " ".join(words[_DAY:])
        raise UsageError(
            f"at character {fields[_DAY].start() + 1} of {text!r}: the day {days!r} never comes",
            subject=text,
            next_step="`0 0 L * *` is the last day of each month",
        ) from error
    if sim.hours == EVERY_HOUR:
        words[1] = "*"
    else:
        words[0], words[1] = _written_out(sim.minutes), _written_out(sim.hours)
    return CronLine(" ".join(words), time_zone(zone))


def _check_field(text: str, number: int, field: re.Match[str]) -> None:
    """UsageError that says where in the line the field is, and what may stand there."""
    alone = ["*"] * len(_FIELDS)
    alone[number] = field[0]
    name, allowed = _FIELDS[number]
    try:
        if _FIELD.fullmatch(field[0]) is None:
            raise CronSimError
        CronSim(" ".join(alone), _SOME_DAY)
    except CronSimError as error:
        raise UsageError(
            f"at character {field.start() + 1} of {text!r}: {field[0]!r} is no {name}",
            subject=text,
            next_step=f"there may stand {allowed}, `*`, a list, a range, or one with a step: */2",
        ) from error


def _written_out(numbers: set[int]) -> str:
    return ",".join(map(str, sorted(numbers)))
