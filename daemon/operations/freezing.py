"""A backup with hosts held still: freeze, mark, thaw, in that order, and what is said when one fails."""

from __future__ import annotations

from collections.abc import Callable

from daemon.site import Site
from engine.copies.copies import Copy
from engine.group.core import GroupCore
from protocol.commands.backup import FreezeInfo
from protocol.errors import FarshoreError, TimedOut, Unsafe
from protocol.events import Consistency
from protocol.guarding import GuardReport
from site_primary.quiesce import BY_HAND, OnFailure, Quiesced


async def mark_frozen(
    site: Site, group: GroupCore, name: str, mark: Callable[[Consistency], Copy]
) -> tuple[Copy, FreezeInfo]:
    """Run a hook around `mark`; the copy and the `freeze` part of the answer. NotFound without such a hook;
    TimedOut or Unsafe if the freeze failed and the hook wants no backup then."""
    quiesced = await site.hooks.freeze(name, group.name)
    try:
        copy = _mark(site, group, name, quiesced, mark)
    except (FarshoreError, OSError):
        quiesced.release()
        await _thawed(site, group, name, quiesced)
        raise
    finally:
        # Also when this request is cancelled: the guard thaws.
        quiesced.release()
    ended = await _thawed(site, group, name, quiesced)
    if ended is not None and ended.late and not quiesced.failure:
        raise TimedOut(
            f"hook {name} was thawed by its guard before the mark was surely in the journal: "
            f"take backup {copy.name} for crash-consistent",
            subject=group.name,
            position=str(copy.cut),
            next_step="take another one; a longer timeout_s of the hook gives more time",
        )
    return copy, FreezeInfo(
        hook=name,
        freeze_ms=quiesced.freeze_ms,
        frozen_ms=ended.frozen_ms if ended else None,
        failure=quiesced.failure,
        stuck=ended.stuck if ended else "",
    )


def _mark(
    site: Site, group: GroupCore, name: str, quiesced: Quiesced, mark: Callable[[Consistency], Copy]
) -> Copy:
    if quiesced.still_frozen(site.clock):
        return mark(Consistency.APPLICATION)
    failure = quiesced.failure or "the time-out passed before the mark"
    crash = quiesced.hook.on_failure is OnFailure.CRASH_CONSISTENT
    site.events.emit(
        "hook.failed", group=group.name, object=name, error=failure,
        timed_out=quiesced.timed_out or not quiesced.failure,
        backup="crash-consistent" if crash else "refused",
    )  # fmt: skip
    if crash:
        quiesced.failure = failure
        return mark(Consistency.CRASH)
    kind = TimedOut if quiesced.timed_out or not quiesced.failure else Unsafe
    raise kind(
        f"hook {name} did not freeze, so there is no backup: {failure}",
        subject=group.name,
        position=str(group.end),
        next_step="mend the hook, or take one without --freeze (crash-consistent)",
    )


async def _thawed(site: Site, group: GroupCore, name: str, quiesced: Quiesced) -> GuardReport | None:
    ended = await quiesced.ended()
    if ended is None:
        site.hooks.thaw_leftovers()
    elif ended.stuck:
        site.events.emit(
            "hook.thaw_failed",
            group=group.name,
            object=name,
            error=ended.stuck,
            next=BY_HAND,
        )
    return ended
