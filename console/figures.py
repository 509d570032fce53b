"""Figures for people: sizes, spans, ages and times, and the sizes and spans that they write. Pure.

Sizes are binary with their IEC names, as in `qemu-img`: `10G` is 10 GiB.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo

from protocol.commands.pair import GroupInfo
from protocol.cut_text import CutTime, parse_fixed_cut
from protocol.errors import UsageError
from protocol.limits import LOCK_S_MAX, RATE_BYTES_S_MAX, RATE_BYTES_S_MIN, VOLUME_BYTES_MAX
from protocol.quantities import SIZE_UNITS, parse_bytes
from protocol.quantities import parse_span as parse_span

UNKNOWN = "-"


def parse_size(text: str) -> int:
    """Bytes of `10G`, `512MiB`, `1.5T` or a plain number.

    Raises UsageError for `10GB`, which means 10^9 to some and 2^30 to others, and for what no volume has.
    """
    size_bytes, rest = parse_bytes(text, "size")
    if rest or not 0 < size_bytes <= VOLUME_BYTES_MAX:
        limit = size_text(VOLUME_BYTES_MAX)
        raise UsageError(f"a volume has from 1 byte to {limit}, not {text}", subject=text)
    return size_bytes


def parse_lock(text: str) -> int:
    """Whole seconds of `30d`, as a lock takes them. Raises UsageError."""
    seconds = int(parse_span(text))
    if not 1 <= seconds <= LOCK_S_MAX:
        raise UsageError(
            f"a lock holds from 1s to {LOCK_S_MAX // 86_400}d, not {text}",
            subject=text,
            next_step="write it as 12h or 30d",
        )
    return seconds


def parse_rate(text: str) -> int:
    """Bytes a second of `10M`, or 0 for `none`. Raises UsageError as `parse_size` does."""
    if text.strip().lower() == "none":
        return 0
    rate_bytes_s, _ = parse_bytes(text, "rate")
    if not RATE_BYTES_S_MIN <= rate_bytes_s <= RATE_BYTES_S_MAX:
        limits = f"{size_text(RATE_BYTES_S_MIN)} to {size_text(RATE_BYTES_S_MAX)}"
        raise UsageError(
            f"a rate is {limits} a second, not {text}", subject=text, next_step="--rate none lifts the limit"
        )
    return rate_bytes_s


def rate_text(rate_bytes_s: int | None) -> str:
    """`10 MiB/s`; `-` for an unknown one or none."""
    return f"{size_text(rate_bytes_s)}/s" if rate_bytes_s else UNKNOWN


def size_text(size_bytes: int | None) -> str:
    """`1.1 MiB`; `-` for an unknown one."""
    if size_bytes is None:
        return UNKNOWN
    number, unit = _scaled(size_bytes)
    return f"{number} {unit}iB" if unit else f"{number} B"


def position_text(timeline: str, position: int) -> str:
    """`8f3a:91.2G`: enough of a position to compare by eye; commands take the whole one."""
    number, unit = _scaled(position)
    return f"{timeline[:4]}:{number}{unit}"


def span_text(seconds: float | None) -> str:
    """`0.4 s`, `14 s`, `3 min`, `6 h`, `9 d`; `-` for an unknown one."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, divisor, unit in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def age_text(seconds: float | None) -> str:
    """`0.3 s ago`; `-` for an unknown one."""
    return UNKNOWN if seconds is None else f"{span_text(seconds)} ago"


def age_s(utc: str | None, now_utc: str | None) -> float | None:
    """Seconds from a reply's time to another one of the same site; None if one is unknown."""
    moment, now = moment_of(utc), moment_of(now_utc)
    return None if moment is None or now is None else max(0.0, (now - moment).total_seconds())


def utc_ns(utc: str) -> int:
    """A reply's time in nanoseconds since the epoch; 0 if it is none."""
    found = parse_fixed_cut(utc)
    return found.utc_ns if isinstance(found, CutTime) else 0


def local_text(utc: str | None, zone: tzinfo) -> str:
    """A reply's time in `zone` to the second with its offset; `-` for an unknown one."""
    moment = moment_of(utc)
    if moment is None:
        return UNKNOWN
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %z")


def short_time_text(utc: str | None, now_utc: str | None, zone: tzinfo) -> str:
    """A reply's time in `zone`: the hour if it was within the last day, else the date."""
    moment, now = moment_of(utc), moment_of(now_utc)
    if moment is None:
        return UNKNOWN
    recent = now is not None and timedelta() <= now - moment < timedelta(hours=20)
    return moment.astimezone(zone).strftime("%H:%M" if recent else "%Y-%m-%d")


def moment_of(utc: str | None) -> datetime | None:
    """A reply's time; decimals past microseconds, which `fromisoformat` refuses in 3.11's form, are cut."""
    if not utc:
        return None
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", utc).replace("Z", "+00:00"))
    except ValueError:
        return None


def _scaled(value: int) -> tuple[str, str]:
    """At most four digits and the unit's letter."""
    scaled, power = float(value), 0
    while scaled >= 1024 and power < len(SIZE_UNITS) - 1:
        scaled /= 1024
        power += 1
    if power == 0:
        return str(value), ""
    text = f"{scaled:.1f}" if scaled < 100 else f"{scaled:.0f}"
    return text.removesuffix(".0"), SIZE_UNITS[power]


def mode_text(group: GroupInfo) -> str:
    """The pair's mode, and whether what it promises is so now."""
    mode = group.mode or ""
    return f"{mode} (not in force)" if group.fallen_back else mode
