"""When a policy wants a backup: at multiples of a span since the epoch, at a time of each UTC day, or by a
cron line in a time zone (`engine.copies.cron_lines`).

Both sites work out the same times, so a site that takes over neither repeats nor leaves out. A slot that was
missed is made up once, with the next look: only the newest one counts.

Each function raises UsageError for a cron line that this site cannot read: a peer with another version, or
with a zone that this machine has not, may have set it.

Pure: times come in as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.copies.cron_lines import cron_line
from protocol.cut_text import NS_PER_S
from protocol.events import PolicySet

DAY_S = 86_400


def _slots(policy: PolicySet) -> tuple[int, int] | None:
    """Span and offset of the slots in nanoseconds."""
    if policy.every_s > 0:
        return policy.every_s * NS_PER_S, 0
    if policy.at_minute >= 0:
        return DAY_S * NS_PER_S, policy.at_minute * 60 * NS_PER_S
    return None


def has_schedule(policy: PolicySet) -> bool:
    """Whether it ever wants one."""
    return bool(policy.cron) or _slots(policy) is not None


def last_slot(policy: PolicySet, now_ns: int) -> int | None:
    """The newest slot at or before now; None without a schedule."""
    if policy.cron:
        return cron_line(policy.cron, policy.zone).last(now_ns)
    slots = _slots(policy)
    if slots is None:
        return None
    span_ns, offset_ns = slots
    return (now_ns - offset_ns) // span_ns * span_ns + offset_ns


def next_slot(policy: PolicySet, now_ns: int) -> int | None:
    """The first slot after now; None without a schedule."""
    if policy.cron:
        return cron_line(policy.cron, policy.zone).next(now_ns)
    slots, last_ns = _slots(policy), last_slot(policy, now_ns)
    return None if slots is None or last_ns is None else last_ns + slots[0]


def slots_after(policy: PolicySet, now_ns: int) -> Iterator[int]:
    """Every slot after now, ascending and, but for a cron line, without an end."""
    next_ns = next_slot(policy, now_ns)
    while next_ns is not None:
        yield next_ns
        next_ns = next_slot(policy, next_ns)


def due(policy: PolicySet, set_ns: int, taken_ns: int, now_ns: int) -> int | None:
    """The slot that a backup is to be taken for now, if the newest was taken at `taken_ns` (0: never) and the
    policy was set at `set_ns`: slots before that are not made up. A time that is yet to come counts as none:
    the clock was ahead when it was written down, and went back."""
    slot_ns = last_slot(policy, now_ns)
    if slot_ns is None or slot_ns <= taken_ns <= now_ns or slot_ns < set_ns <= now_ns:
        return None
    return slot_ns
