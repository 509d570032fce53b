"""How fast a peer is sent to, for people."""

from __future__ import annotations

import re
from datetime import tzinfo

from console.figures import moment_of, parse_rate, rate_text
from protocol.commands.peer import DAY_NAMES, PeerInfo, RateWindow, RateWindowInfo
from protocol.errors import UsageError

_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d"
_SPAN = re.compile(rf"({_TIME})-({_TIME}|24:00)", re.ASCII)


def window_text(window: RateWindowInfo) -> str:
    """`mon-fri 08:00-18:00 Europe/Berlin: 20.0 MiB/s`."""
    rate = rate_text(window.rate_bytes_s) if window.rate_bytes_s else "no limit"
    return f"{window.days} {window.between} {window.zone}: {rate}".lstrip()


def parse_window(text: str, rate: str | None, zone: str | None) -> RateWindow:
    """`[DAYS ]HH:MM-HH:MM[ RATE]`: of which days of the week and times, with its rate here or as `rate`.
    UsageError."""
    *before, span = text.split() or [text]
    if before and _SPAN.fullmatch(before[-1]):
        if rate is not None:
            raise UsageError(f"the rate is {rate} or {span}?", subject=text, next_step="say it once")
        *before, span, rate = *before, span
    match = _SPAN.fullmatch(span)
    days = _days(before[0]) if len(before) == 1 else ()
    if match is None or len(before) > 1 or (match[1] == match[2] and not days):
        raise UsageError(
            f"{text!r} is no span of the day",
            subject=text,
            next_step="write it as 08:00-18:00, over midnight as 22:00-06:00, 'mon-fri 08:00-18:00'",
        )
    if rate is None:
        raise UsageError("which rate is it then?", subject=text, next_step="--rate 20M, or --rate none")
    begin, end = (int(each[:2]) * 60 + int(each[3:]) for each in match.groups())
    return RateWindow(
        from_minute=begin,
        until_minute=end % 1440,
        zone=zone or "UTC",
        rate_bytes_s=parse_rate(rate),
        days=days,
    )


def _days(text: str) -> tuple[int, ...]:
    """Of `mon-fri`, `sat,sun` or `fri-mon`, ascending; none if that is each. UsageError."""
    found = set[int]()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        if first not in DAY_NAMES or (dash and last not in DAY_NAMES):
            raise UsageError(
                f"{part!r} is no day of the week", subject=text, next_step="write it as mon-fri or sat,sun"
            )
        begin, end = DAY_NAMES.index(first), DAY_NAMES.index(last or first)
        found |= {day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)}
    return tuple(sorted(found)) if len(found) < len(DAY_NAMES) else ()


def rate_now_text(peer: PeerInfo, zone: tzinfo) -> str:
    """The rate, and until when if it is one by the time of day: `20.0 MiB/s until 18:00`."""
    if not peer.windows:
        return rate_text(peer.rate_bytes_s)
    rate = rate_text(peer.rate_now_bytes_s) if peer.rate_now_bytes_s else "no limit"
    until = moment_of(peer.rate_until)
    return rate if until is None else f"{rate} until {until.astimezone(zone):%H:%M}"
