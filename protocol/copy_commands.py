"""Commands that change what is kept: pins, deletion and pruning of backups, and a group's policy.

BACKUP as in `protocol.commands`. KEEP is {"last", "hourly", "daily", "weekly", "monthly", "yearly"}, counts.
SCHEDULE is {"group", "every_s": int|null, "at": "HH:MM"|null (UTC), "keep": KEEP, "freeze": str|null,
"window_s": float, "window_bytes": int|null (what holds at this site; null: no bound of its own),
"window_from": "group"|"site", "set": str|null (when), "last_run": str|null, "next_run": str|null,
"runs_here": bool (the site that writes takes the backups), "failure": str|null (of the last run here)}.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.bounds import LockSeconds
from protocol.command_base import BaseCommand, Confirm, Name
from protocol.cut_text import NamedCut
from protocol.limits import KEEP_MAX, NAME_CHARS_MAX, SCHEDULE_SPAN_S_MAX, VOLUME_BYTES_MAX
from protocol.pages import PagedCommand

Count = Annotated[int, Meta(ge=0, le=KEEP_MAX)]
Hook = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]


class BackupPin(BaseCommand, frozen=True, tag="backup.pin"):
    """Pin a backup (`pinned`), so that it is neither deleted nor pruned, or unpin it. BACKUP"""

    group: Name
    cut: NamedCut
    pinned: bool = True


class BackupLock(BaseCommand, frozen=True, tag="backup.lock"):
    """Lock a backup for `lock_s` seconds from now on, or extend its lock: until then nobody can delete it, at
    either site. Refused if it is locked for longer already. BACKUP"""

    group: Name
    cut: NamedCut
    lock_s: LockSeconds


class BackupDelete(BaseCommand, frozen=True, tag="backup.delete"):
    """Delete a backup, at every site. Refused while it is pinned or locked. `confirm` is its label, or else
    its id; not needed with `dry_run`. BACKUP and {"deleted": bool,
    "unique_bytes": int|null (in a dry run: what comes free)}"""

    group: Name
    cut: NamedCut
    dry_run: bool = False
    confirm: Confirm = ""


class KeepCounts(BaseCommand, frozen=True, kw_only=True):
    """How many backups of each kind stay; null: as it was set."""

    keep_last: Count | None = None
    keep_hourly: Count | None = None
    keep_daily: Count | None = None
    keep_weekly: Count | None = None
    keep_monthly: Count | None = None
    keep_yearly: Count | None = None

    @property
    def counts(self) -> tuple[int | None, ...]:
        """In the order of a policy's `keep`."""
        return (
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        )


class BackupPrune(KeepCounts, frozen=True, tag="backup.prune"):
    """Delete the backups that no keep rule keeps: those given, else those of the group's policy. Pinned ones
    stay, and labelled ones unless `labelled`. `confirm` is `G`, not needed with `dry_run`.
    {"group", "dry_run": bool, "rules": KEEP, "kept": [{"id", "label", "time", "why": [str]}],
    "deleted": [{"id", "label", "time", "why": []}], "left": [{"id", "label", "time", "why": [str]}]
    (no rule looks at them)}"""

    group: Name
    labelled: bool = False
    dry_run: bool = False
    confirm: Confirm = ""


class ScheduleSet(KeepCounts, frozen=True, tag="schedule.set"):
    """Change a group's policy; null leaves a part as it is. `every_s` and `at_minute` replace each other. A
    `window_s` below this site's `lock_window_s` is refused as locked.
    `window_s` -1 and `window_bytes` 0: as each site is set. `confirm` is `G`, needed to make the window
    shorter. SCHEDULE"""

    group: Name
    every_s: Annotated[int, Meta(ge=1, le=SCHEDULE_SPAN_S_MAX)] | None = None
    at_minute: Annotated[int, Meta(ge=0, lt=1440)] | None = None
    window_s: Annotated[int, Meta(ge=-1, le=SCHEDULE_SPAN_S_MAX)] | None = None
    window_bytes: Annotated[int, Meta(ge=0, le=VOLUME_BYTES_MAX)] | None = None
    freeze: Hook | None = None
    confirm: Confirm = ""


class ScheduleList(PagedCommand, frozen=True, tag="schedule.list"):
    """The policies of all groups, or of one. {"schedules": [SCHEDULE]}"""

    group: Name | None = None


class ScheduleRemove(BaseCommand, frozen=True, tag="schedule.remove"):
    """No more backups by themselves and none pruned; the window stays. SCHEDULE"""

    group: Name
