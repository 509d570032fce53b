"""Sizes and spans that people write: on a command line, and in site.toml. Pure.

Sizes are binary with their IEC names, as in `qemu-img`: `10G` is 10 GiB.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from protocol.errors import UsageError

SIZE_UNITS = ("", "K", "M", "G", "T", "P")
# Weeks, days, hours, minutes, whole seconds and their decimals, each where it is named: `1h30m`, `2 days`.
SPAN_PATTERN = (
    r"(?=\d)(?:(\d{1,5})\s?(?:w|weeks?)\s?)?(?:(\d{1,6})\s?(?:d|days?)\s?)?"
    r"(?:(\d{1,7})\s?(?:h|hrs?|hours?)\s?)?(?:(\d{1,9})\s?(?:m|mins?|minutes?)\s?)?"
    r"(?:(\d{1,11})(?:\.(\d{1,9}))?\s?(?:s|secs?|seconds?))?"
)
SPAN_UNITS_S = (604_800, 86_400, 3_600, 60, 1)
_SPAN = re.compile(SPAN_PATTERN, re.ASCII | re.IGNORECASE)
_SIZE = re.compile(r"(\d{1,18})(?:\.(\d{1,6}))?\s?(?:([KMGTP])(?:iB)?)?", re.IGNORECASE | re.ASCII)


def parse_span(text: str) -> float:
    """Seconds of `30s`, `5m`, `1h30m`, `2d`, `0.5s` or `10 minutes`. Raises UsageError; a bare number has no
    unit."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text!r} is no span of time", subject=text, next_step="write it as 30s, 5m or 1h30m"
        )
    *whole, decimals = match.groups()
    return span_s(whole) + float(f"0.{decimals or 0}")


def span_s(parts: Sequence[str | None]) -> int:
    """Whole seconds of what `SPAN_PATTERN` found, less the decimals."""
    return sum(int(part or 0) * unit_s for part, unit_s in zip(parts, SPAN_UNITS_S, strict=True))


def parse_bytes(text: str, noun: str) -> tuple[int, int]:
    """Whole bytes of `10G`, `512MiB`, `1.5T` or a plain number, and whether there is more than those.

    Raises UsageError, also for `10GB`, which means 10^9 to some and 2^30 to others.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        hint = "write 10G for 10 GiB" if text.upper().endswith("B") else "write it as 512M, 10G or 1T"
        raise UsageError(f"{text!r} is no {noun}", subject=text, next_step=hint)
    whole, decimals, unit = match.groups()
    scaled = int(whole + (decimals or "")) << 10 * SIZE_UNITS.index((unit or "").upper())
    divisor: int = 10 ** len(decimals or "")
    return divmod(scaled, divisor)
