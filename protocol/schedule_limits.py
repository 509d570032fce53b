"""Bounds of schedules and rates by the time of day; the others are in `protocol.limits`."""

from __future__ import annotations

CRON_LINE_CHARS_MAX = 200
# How many runs one preview shows.
SCHEDULE_RUNS_MAX = 100
# Of one peer: each is looked at every few seconds.
RATE_WINDOWS_MAX = 16
