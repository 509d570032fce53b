"""Takes the backups that groups' policies ask for, at the site that writes, and prunes after each.

Groups do not wait for each other: a hook that takes its time, or a peer that does not answer, is its group's.

It remembers nothing: what was taken stands in the journal, so a site that takes over, or was down, knows what
is due (`engine.copies.schedules`). A run that failed is tried again after a while; each failure is an event.
"""

from __future__ import annotations

import asyncio

from daemon.journal_times import JournalTimes
from daemon.operations import backup
from daemon.operations.pruning import prune_quietly
from daemon.operations.schedule import last_run
from daemon.site import Site
from engine.acting import acting
from engine.copies.keep_rules import KeepRules
from engine.copies.schedules import due, has_schedule
from engine.group.compartment import attempt, attempt_async
from engine.group.group import Group
from protocol.commands.backup import BackupCreate
from protocol.errors import FarshoreError
from protocol.events import PolicySet

LOOK_EVERY_S = 1.0
GROUPS_A_TURN = 25  # looked at before hosts, who wait in the same loop, have their turn
# After a failure, and the longest it becomes after one upon another: each try may hold hosts still.
RETRY_S = 60.0
RETRY_MAX_S = 3600.0
# Groups whose backups are being taken at once.
RUNS_MAX = 32


class Scheduler:
    """One site's. `start` on its loop; `close` before the site stops."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._task: asyncio.Task[None] | None = None
        self._runs: dict[str, asyncio.Task[None]] = {}  # by group
        self._times = JournalTimes()
        self._not_before: dict[str, float] = {}  # by group, monotonic: after a failure
        self._pause_s: dict[str, float] = {}
        self._done: dict[str, int] = {}  # by group, when the newest backup was taken: UTC ns

    def start(self) -> None:
        """Begin to look, now and then."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="scheduler")
        self._task.add_done_callback(_report_defect)

    async def close(self) -> None:
        """Stop; a backup that is being taken is left to itself."""
        tasks = [*self._runs.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for turn, name in enumerate(sorted(self._site.groups)):
                if turn % GROUPS_A_TURN == 0:
                    await asyncio.sleep(0)
                group = self._site.groups.get(name)
                if group is None or group.failed:
                    continue
                self._times.look(group)
                if name in self._runs or len(self._runs) >= RUNS_MAX:
                    continue
                defect = attempt("schedule.defect", self.look_at, group)
                if defect is not None:
                    self._failed(name, defect)
            await asyncio.sleep(LOOK_EVERY_S)

    def look_at(self, group: Group) -> asyncio.Task[None] | None:
        """Begin to take a backup of a group if one is due; who takes it."""
        name = group.name
        # Each group is asked each second: only of those with a schedule more is looked up.
        if not group.policies.ever_set:
            return None
        set_ns, policy = group.policies.at(group.spans())
        if not has_schedule(policy):
            return None
        if not group.primary:
            return None
        try:
            # A cron line that this site cannot read fails as a run does.
            if not self._due(group, set_ns, policy):
                return None
        except FarshoreError as error:
            self._failed(name, error)
            return None
        task = asyncio.get_running_loop().create_task(self._take_one(group, policy), name=f"schedule {name}")
        self._runs[name] = task
        return task

    async def _take_one(self, group: Group, policy: PolicySet) -> None:
        try:
            defect = await attempt_async("schedule.defect", self._try(group, policy))
        finally:
            self._runs.pop(group.name, None)
        if defect is not None:
            self._failed(group.name, defect)

    async def _try(self, group: Group, policy: PolicySet) -> None:
        site, name = self._site, group.name
        try:
            with acting("schedule"):
                await self._take(group, policy)
        except (FarshoreError, OSError) as error:
            self._failed(name, error)
        else:
            self._done[name] = site.clock.utc_ns()
            self._pause_s.pop(name, None)
            site.schedule_failures.pop(name, None)

    async def _take(self, group: Group, policy: PolicySet) -> None:
        await backup.create(self._site, BackupCreate(group=group.name, freeze=policy.freeze or None))
        if any(policy.keep):
            await prune_quietly(self._site, group, KeepRules(*policy.keep))

    def _failed(self, name: str, error: Exception) -> None:
        site = self._site
        self._pause_s[name] = pause_s = min(2 * self._pause_s.get(name, RETRY_S / 2), RETRY_MAX_S)
        self._not_before[name] = site.clock.monotonic() + pause_s
        site.schedule_failures[name] = str(error)
        site.events.emit("schedule.failed", group=name, error=str(error))

    def _due(self, group: Group, set_ns: int, policy: PolicySet) -> bool:
        site, name = self._site, group.name
        if not group.volumes.any_at(group.spans()) or site.clock.monotonic() < self._not_before.get(
            name, 0.0
        ):
            return False
        now_ns = site.clock.utc_ns()
        if due(policy, set_ns, self._done.get(name, 0), now_ns) is None:
            return False
        taken = last_run(group)
        if taken is None or due(policy, set_ns, taken.utc_ns, now_ns) is not None:
            return True
        self._done[name] = taken.utc_ns
        return False


def _report_defect(task: asyncio.Task[None]) -> None:
    """Without this a bug would end the schedules of a site, and nobody would know."""
    if not task.cancelled() and (defect := task.exception()) is not None:
        context = {"message": "the scheduler ended", "exception": defect}
        task.get_loop().call_exception_handler(context)
