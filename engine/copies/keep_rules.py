"""Which backups stay: of each period the newest, for as many periods as a rule says.

As in restic and borg: a period without a backup does not count, so `daily=7` keeps backups of seven days on
which some were taken. The rules are independent of each other; a backup stays if any keeps it. Periods are
those that a clock of the time zone shows: a day on which it is set has 23 hours or 25, and an hour that comes
twice is two, told apart by their offsets. Weeks begin on Monday (ISO 8601).

Pure: times come in as numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from engine.steps import at_once
from protocol.cut_text import NS_PER_S


class KeepRules(NamedTuple):
    """How many of each; 0: that rule keeps none."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0


def _hour(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H" if at.tzinfo is UTC else "%Y-%m-%d %H %z")


_PERIODS: dict[str, Callable[[datetime], str]] = {
    "hourly": _hour,
    "daily": lambda at: at.strftime("%Y-%m-%d"),
    "weekly": lambda at: "{}-W{:02d}".format(*at.isocalendar()[:2]),
    "monthly": lambda at: at.strftime("%Y-%m"),
    "yearly": lambda at: at.strftime("%Y"),
}


def kept(backups: Iterable[tuple[int, int]], rules: KeepRules, zone: tzinfo = UTC) -> dict[int, list[str]]:
    """Of backups (UTC nanoseconds, id) those that stay, by id, each with the rules that keep it: `last`, or
    `daily 2026-03-29`. Of one time, as a clock that went back makes them, the one that is given last is the
    newest."""
    return at_once(kept_steps(backups, rules, zone))


def kept_steps(
    backups: Iterable[tuple[int, int]], rules: KeepRules, zone: tzinfo = UTC
) -> Generator[None, None, dict[int, list[str]]]:
    """The same, step by step, a few microseconds each."""
    newest_first = list(backups)[::-1]
    newest_first.sort(key=lambda backup: -backup[0])
    found: dict[int, list[str]] = {}
    for _, copy_id in newest_first[: rules.last]:
        found.setdefault(copy_id, []).append("last")
    for name, period_of in _PERIODS.items():
        left: int = getattr(rules, name)
        seen = set[str]()  # a clock that is set back over midnight shows a day once more
        for utc_ns, copy_id in newest_first:
            if left == 0:
                break
            yield
            period = period_of(datetime.fromtimestamp(utc_ns // NS_PER_S, zone))
            if period not in seen:
                found.setdefault(copy_id, []).append(f"{name} {period}")
                seen.add(period)
                left -= 1
    return found
