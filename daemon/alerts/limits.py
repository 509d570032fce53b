"""[alerts] in site.toml: from when on a figure is something that a person must know."""

from __future__ import annotations

import msgspec

from protocol.errors import UsageError
from protocol.limits import SCHEDULE_SPAN_S_MAX
from protocol.positions import POSITION_MAX

_MOST: dict[str, float] = {
    "max_lag_s": SCHEDULE_SPAN_S_MAX,
    "max_lag_bytes": POSITION_MAX,
    "max_backup_age_s": SCHEDULE_SPAN_S_MAX,
    "max_drill_age_s": SCHEDULE_SPAN_S_MAX,
}


class AlertLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of [alerts]; 0: no limit."""

    max_lag_s: float = 300.0
    """Most that the peer of a pair may be behind, in seconds."""

    max_lag_bytes: int = 0
    """The same in bytes of journal."""

    max_backup_age_s: float = 0.0
    """Most that the newest backup of a group may be old."""

    max_drill_age_s: float = 0.0
    """Most that the last drill at this site of a group that follows may be old; none counts as too old."""


def check_limits(limits: AlertLimits) -> None:
    """UsageError."""
    for key, most in _MOST.items():
        value = getattr(limits, key)
        if not 0 <= value <= most:  # what is not a number too
            raise UsageError(
                f"alerts.{key} is {value}: it must be from 0 to {most:g}", subject=f"alerts.{key}"
            )
