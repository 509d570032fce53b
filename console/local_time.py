"""This machine's time zone and clock, read at the edge and handed on as values."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo


class LocalZone(tzinfo):
    """The zone of this process by the C library's rules (TZ, /etc/localtime), whatever form they have.

    `zoneinfo` needs a name, which neither /etc/localtime nor a POSIX rule in TZ gives.
    """

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """See `tzinfo.utcoffset`; `fold` chooses between the readings of an ambiguous hour."""
        if moment is None:
            return None
        return moment.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, moment: datetime | None) -> timedelta | None:
        """Unknown; the offset has it already."""
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """The zone's abbreviation at that time."""
        if moment is None:
            return None
        return moment.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, moment: datetime) -> datetime:
        """See `tzinfo.fromutc`; exact around shifts, where the default goes wrong."""
        return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)


def now_ns() -> int:
    """Nanoseconds since the epoch, UTC."""
    return time.time_ns()


def monotonic() -> float:
    """Seconds that never go back."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Wait between two looks of a watching command."""
    time.sleep(seconds)
