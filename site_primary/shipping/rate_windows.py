"""Rates by the time of day: which holds for a peer now, and until when.

A window holds from one minute of the day to another, as the clock of its time zone shows them: over midnight
where its end is not after its beginning, and while the clock shows such a time where the clock is set. So an
hour that comes twice is in it twice, and one that is left out not at all. One of certain days of the week
begins on these: over midnight it ends on the day after. In a window its rate holds in place of the peer's; of
several the slowest. One whose zone this machine does not know never holds.

It remembers nothing: a clock that jumps is as if it had always been so.

Pure, but for the tz database: times come in as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from engine.ports.time_zones import time_zone
from protocol.commands.peer import RateWindow
from protocol.cut_text import NS_PER_S
from protocol.errors import UsageError

# How far ahead a change is looked for: a window may be left out for a day, and a zone leave out a day; one of
# a day of the week may then come a week later.
LOOK_AHEAD, LOOK_AHEAD_OF_DAYS = timedelta(days=4), timedelta(days=15)
_STEP = timedelta(minutes=30)
_MINUTE = timedelta(minutes=1)


class RateNow(NamedTuple):
    """Bytes a second, 0 for no limit; and when it becomes another, in nanoseconds of UTC: None if not within
    days."""

    rate_bytes_s: int
    until_ns: int | None


def rate_at(rate_bytes_s: int, windows: Sequence[RateWindow], utc_ns: int) -> int:
    """Bytes a second that hold at a time, 0 for no limit."""
    return _rate_at(rate_bytes_s, _known(windows), _moment(utc_ns))


def rate_now(rate_bytes_s: int, windows: Sequence[RateWindow], utc_ns: int) -> RateNow:
    """The same, and until when."""
    known, now = _known(windows), _moment(utc_ns)
    rate_at_now = _rate_at(rate_bytes_s, known, now)
    for moment in sorted(_possible_changes(known, now)):
        if _rate_at(rate_bytes_s, known, moment) != rate_at_now:
            return RateNow(rate_at_now, int(moment.timestamp()) * NS_PER_S)
    return RateNow(rate_at_now, None)


def _moment(utc_ns: int) -> datetime:
    return datetime.fromtimestamp(utc_ns / NS_PER_S, UTC)


def _known(windows: Sequence[RateWindow]) -> list[tuple[RateWindow, ZoneInfo]]:
    return [(window, zone) for window in windows if (zone := _zone(window)) is not None]


def _zone(window: RateWindow) -> ZoneInfo | None:
    try:
        return time_zone(window.zone)
    except UsageError:
        return None


def _rate_at(rate_bytes_s: int, windows: Sequence[tuple[RateWindow, ZoneInfo]], moment: datetime) -> int:
    held = [window.rate_bytes_s for window, zone in windows if _holds(window, moment.astimezone(zone))]
    return min(held, key=lambda each: each or math.inf) if held else rate_bytes_s


def _holds(window: RateWindow, wall: datetime) -> bool:
    minute, day = wall.hour * 60 + wall.minute, wall.weekday()
    if window.from_minute < window.until_minute:
        return window.from_minute <= minute < window.until_minute and _begins(window, day)
    return (minute >= window.from_minute and _begins(window, day)) or (
        minute < window.until_minute and _begins(window, (day - 1) % 7)
    )


def _begins(window: RateWindow, day: int) -> bool:
    return not window.days or day in window.days


def _possible_changes(windows: Sequence[tuple[RateWindow, ZoneInfo]], now: datetime) -> Iterator[datetime]:
    """Every moment after now, for some days, at which a window may begin or end: when its clock shows one of
    its two times, or is set."""
    ahead = LOOK_AHEAD_OF_DAYS if any(window.days for window, _ in windows) else LOOK_AHEAD
    for window, zone in windows:
        day = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        for days in range(-1, ahead.days + 1):
            # Midnight: a day that the clock leaves out may be one of them.
            for minute in {window.from_minute, window.until_minute, *([0] if window.days else [])}:
                wall = day + timedelta(days=days, minutes=minute)
                both = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
                yield from (moment for moment in both if moment > now)
    for zone in {zone for _, zone in windows}:
        yield from _clock_set(zone, now, ahead)


def _clock_set(zone: ZoneInfo, now: datetime, ahead: timedelta) -> Iterator[datetime]:
    """When the zone's clock is set, to the minute."""
    before = now.replace(second=0, microsecond=0)
    end = before + ahead
    while before < end:
        after = before + _STEP
        while before.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            if after - before == _MINUTE:
                yield after
                break
            middle = before + (after - before) // _MINUTE // 2 * _MINUTE
            if before.astimezone(zone).utcoffset() != middle.astimezone(zone).utcoffset():
                after = middle
            else:
                before = middle
        before = max(before + _MINUTE, after)
