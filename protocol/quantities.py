"""Sizes and spans that people write: on a command line, and in site.toml. Pure.

Sizes are binary with their IEC names, as in `qemu-img`: `10G` is 10 GiB.
"""

from __future__ import annotations

import re

from protocol.errors import UsageError

SIZE_UNITS = ("", "K", "M", "G", "T", "P")
_SPAN = re.compile(
    r"(?=\d)(?:(\d{1,5})d)?(?:(\d{1,6})h)?(?:(\d{1,8})m)?(?:(\d{1,9}(?:\.\d{1,6})?)s)?", re.ASCII
)
_SIZE = re.compile(r"(\d{1,18})(?:\.(\d{1,6}))?\s?(?:([KMGTP])(?:iB)?)?", re.IGNORECASE | re.ASCII)


def parse_span(text: str) -> float:
    """Seconds of `30s`, `5m`, `1h30m`, `2d` or `0.5s`. Raises UsageError; a bare number has no unit."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text!r} is no span of time", subject=text, next_step="write it as 30s, 5m or 1h30m"
        )
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86_400 + hours * 3_600 + minutes * 60 + seconds


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
