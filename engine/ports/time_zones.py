"""Time zones by their names in the tz database: the machine's, else that of the package `tzdata`.

A name is one of a place (`Europe/Berlin`) or `UTC`. What is another zone at each machine (`localtime`), or
counts leap seconds (`right/…`), is refused where a person types it. Rules of a zone are read once; those of a
newer database count from the next start of the daemon.
"""

from __future__ import annotations

import difflib
from zoneinfo import ZoneInfo, available_timezones

from protocol.errors import UsageError

_NO_PLACES = frozenset({"localtime", "Factory"})


def time_zone(name: str) -> ZoneInfo:
    """The zone of that name. UsageError if this machine knows none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(
            f"this site knows no time zone {name!r}",
            subject=name,
            next_step="write it as Europe/Berlin or UTC; `timedatectl list-timezones` has the names",
        ) from error


def check_zone(name: str) -> str:
    """The name, if a person may choose it. UsageError, with the nearest one that there is."""
    known = available_timezones() - _NO_PLACES
    if name in known:
        return name
    by_letters = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_letters, n=1)
    hint = f"did you mean {by_letters[near[0]]}?" if near else "write it as Europe/Berlin or UTC"
    raise UsageError(f"there is no time zone {name!r}", subject=name, next_step=hint)
