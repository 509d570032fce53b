"""The operator: backups, reverts, and looks at what both sites hold; roles are in `role_tasks`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.group.group import Group
from engine.history.bases import shared_below
from engine.history.cuts import checked_cut, cut_at_time
from engine.peering.role_exports import open_volumes
from engine.steps import at_once
from protocol.errors import FarshoreError, Mismatch, NotFound, Trimmed
from protocol.limits import SECTOR_BYTES
from protocol.positions import Cut
from site_primary.backup import take_backup
from site_primary.resize_volume import resize
from site_primary.restore_volume import carry_out, check_restored, plan_restore
from site_primary.shipping.comparison import Choice
from tests.sim.branch_tasks import BranchTasks
from tests.sim.content import Contents, copied
from tests.sim.history import Backup, Violation
from tests.sim.looks import check_backups, check_cut
from tests.sim.mortal import ProcessDied
from tests.sim.oracle import Oracle
from tests.sim.role_tasks import RoleTasks
from tests.sim.shape import Task
from tests.sim.sim_site import GROUP, SimProcess, SimSite

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation


class Operator:
    """Does one task at a time; an error that production gives is an answer like any other."""

    def __init__(self, sim: Simulation) -> None:
        self.done: dict[Task, int] = dict.fromkeys(Task, 0)
        self._sim = sim
        self._rng = sim.world.random
        self._labels = 0
        self.roles = RoleTasks(sim)
        self.branches = BranchTasks(sim)

    def act(self, rng: random.Random) -> None:
        """Once in a while; every choice from `rng`."""
        self._rng = rng
        tasks = self._sim.shape.tasks
        task = self._rng.choices(list(tasks), list(tasks.values()))[0]
        if task is Task.AUDIT:
            for site in self._sim.sites:
                self.audit(site)
            self.done[task] += 1
            return
        site = self._rng.choice(self._sim.sites)
        if not site.serving or site.group is None or site.group.failed:
            return
        try:
            done = self._carry_out(task, site, site.group)
        except (FarshoreError, OSError) as error:
            if isinstance(error, Mismatch):
                raise Violation(f"{task.value}: {error}") from error
            self._sim.say(site.name, "operator", task.value, str(error))
            return
        if done:
            self._sim.say(site.name, "operator", task.value)
            self.done[task] += 1

    def _carry_out(self, task: Task, site: SimSite, group: Group) -> bool:
        """False if there was nothing to do."""
        roles = self.roles
        match task:
            case Task.SWITCHOVER:
                return roles.switchover(site)
            case Task.TAKEOVER:
                return roles.takeover(site)
            case Task.SPLIT:
                return roles.split(site)
            case Task.DETACH:
                return roles.detach(site)
            case Task.RESYNC:
                return roles.resync(site, Choice.NONE)
            case Task.RESYNC_LOCAL:
                return roles.resync(site, Choice.LOCAL)
            case Task.RESYNC_REMOTE:
                return roles.resync(site, Choice.REMOTE)
            case Task.DROP:
                return self.branches.drop(site, group, self._rng)
            case Task.ONLINE:
                self.online(site)
        if site.process is None or not site.process.role.writes:
            return task is Task.ONLINE
        match task:
            case Task.BACKUP:
                self._backup(site, group, None)
            case Task.OLD_BACKUP:
                cut = self._some_cut(site)
                if cut is not None:
                    self._backup(site, group, cut)
            case Task.REVERT:
                self._revert(site, site.process, group, self._some_cut(site))
            case Task.REVERT_TO_BRANCH:
                self.revert_to_branch(site, site.process, group)
                return False
            case Task.RESIZE:
                self._resize(site, site.process, group)
        return True

    # -- backups and reverts

    def _some_cut(self, site: SimSite) -> Cut | None:
        """A boundary of a site's journal at which there are volumes."""
        moments = self._sim.history.moments
        line = self._sim.oracles[site.name].line
        known = [cut for cut in line if moments[cut].contents and self._kept(site, cut)]
        return self._rng.choice(known) if known else None

    def _kept(self, site: SimSite, cut: Cut) -> bool:
        """Whether both sites can read a cut: a revert to what the secondary gave up stops it."""
        groups = [each.group for each in (site, self._sim.other(site))]
        return all(
            group.kept.readable(cut)
            for group in groups
            if group is not None and cut.timeline in group.timelines
        )

    def _backup(self, site: SimSite, group: Group, cut: Cut | None) -> None:
        oracle, history = self._sim.oracles[site.name], self._sim.history
        self._labels += 1
        label = f"b{self._labels}"
        contents = copied(oracle.live if cut is None else history.moments[cut].contents)
        oracle.begin(oracle.live)
        try:
            copy = take_backup(group, volume=None, label=label, cut=cut, pinned=False, rng=self._rng)
        except ProcessDied:
            raise
        except (FarshoreError, OSError):
            oracle.fail(oracle.live)
            raise
        oracle.finish(oracle.live)
        backup = Backup(label=label, began=copy.position, mark=group.end, cut=copy.cut, contents=contents)
        if cut is not None and copy.cut != cut:
            raise Violation(f"L4: backup {label} of {cut} is of {copy.cut}")

        def durable(error: OSError | None) -> None:
            if error is None:
                oracle.told_durable(backup.mark)
                history.backups.append(backup)

        group.when_durable(durable)

    def revert_to_branch(self, site: SimSite, process: SimProcess, group: Group) -> bool:
        """Turn volumes back to what one of the site's branches has."""
        cut = self.branches.some_cut(site, group, self._rng)
        if cut is not None:
            self._revert(site, process, group, cut)
            self.done[Task.REVERT_TO_BRANCH] += 1
        return cut is not None

    def _revert(self, site: SimSite, process: SimProcess, group: Group, cut: Cut | None) -> None:
        oracle = self._sim.oracles[site.name]
        if cut is None:
            return
        checked_cut(group, cut)
        then = self._sim.history.moments[cut].contents
        names = [name for name in sorted(then) if self._rng.random() < 0.7]
        if not names:
            return
        plan = plan_restore(group, names, cut, skip_missing=False)
        self.branches.hold_there(site, group, cut)
        volumes = [volume.id for volume in plan.volumes]
        process.state.set_closed(group.name, volumes, f"turned back to {cut}")
        for volume in plan.volumes:
            process.exports.shut(group, volume)
        after = copied(oracle.live)
        for name in names:
            after[name] = then[name].copy()
            for floor in oracle.all_floors():
                if name in floor.contents:
                    floor.contents[name].may_become(then[name])
        self._change(oracle, after, lambda: carry_out(group, plan))
        at_once(check_restored(group, plan, self._rng))

        def durable(error: OSError | None) -> None:
            if error is None and process is site.process:
                with contextlib.suppress(OSError):
                    open_volumes(process.state, group, volumes)

        group.when_durable(durable)

    def _resize(self, site: SimSite, process: SimProcess, group: Group) -> None:
        """What lies past the end of a volume that was shrunk is zeroes, as soon as anybody can see it."""
        oracle = self._sim.oracles[site.name]
        if not oracle.live:
            return
        name = self._rng.choice(sorted(oracle.live))
        volume, most = group.volume(name), oracle.live[name].sectors
        sectors = self._rng.randint(1, most)
        after = copied(oracle.live)
        after[name].write(sectors, most - sectors, 0)
        for floor in oracle.all_floors():
            if name in floor.contents:
                floor.contents[name].may_write(sectors, most - sectors, 0)
        self._change(oracle, after, lambda: resize(group, volume, sectors * SECTOR_BYTES))
        if self._rng.random() < 0.5:
            process.exports.shut(group, volume)
        end = group.end
        group.when_durable(lambda error: oracle.told_durable(end) if error is None else None)

    def _change(self, oracle: Oracle, after: Contents, work: Callable[[], object]) -> None:
        """Do what makes `after` of what there is, unless it fails in the middle."""
        either = copied(oracle.live)
        for name, content in after.items():
            either[name].may_become(content)
        oracle.begin(after)
        try:
            work()
        except ProcessDied:
            oracle.interrupted(either)
            raise
        except (FarshoreError, OSError):
            oracle.fail_revert(either)
            raise
        oracle.finish(after)

    def online(self, site: SimSite) -> None:
        """Open what a revert or a role move closed."""
        process, group = site.process, site.group
        if process is not None and group is not None and process.role.writes:
            volumes = [volume.id for volume in group.volumes.at(group.spans()).values()]
            open_volumes(process.state, group, volumes)

    # -- looking

    def audit(self, site: SimSite, cuts: int = 3) -> None:
        """Some cuts at a site, its newest, and a time."""
        group, process = site.group, site.process
        if group is None or process is None or group.failed or not site.serving:
            return
        history, oracle = self._sim.history, self._sim.oracles[site.name]
        held = oracle.line
        chosen = self._rng.sample(held, min(cuts, len(held)))
        if group.end in history.moments:
            chosen.append(group.end)
        for cut in chosen:
            if not group.kept.readable(cut):
                continue
            check_cut(history, site.name, group, checked_cut(group, cut))
        if process.role.writes:
            oracle.check_live(group)
        check_backups(history, site.name, group, whole=False)
        if held:
            self._check_time(site, group, held)
        if self._sim.laws.in_session(self._sim.other(site)):
            self._check_complete(site, held, process.complete_until_ns(GROUP))

    def _check_complete(self, site: SimSite, held: list[Cut], until_ns: int) -> None:
        """Up to the time that a secondary says, it holds all that the primary wrote."""
        here = set(held)
        for cut in self._sim.oracles[self._sim.other(site).name].line:
            if self._sim.history.moments[cut].utc_ns <= until_ns and cut not in here:
                raise Violation(f"L4: {site.name} calls itself complete until {until_ns} without {cut}")

    def _check_time(self, site: SimSite, group: Group, held: list[Cut]) -> None:
        """A time means the last frame written at or before it."""
        moments = self._sim.history.moments
        utc_ns = moments[self._rng.choice(held)].utc_ns + self._rng.choice((-1, 0, 1))
        early = [cut for cut in held if moments[cut].utc_ns <= utc_ns]
        wanted = max(early, key=lambda cut: cut.position, default=None)
        try:
            found = cut_at_time(group, utc_ns)
        except NotFound:
            found = None
        except Trimmed:
            retention = group.kept.retention
            # Below what was truncated, and at the edge of a base's gap, a kept cut may be the answer, or a
            # frame that is not here: nobody can tell. The frame after a run's last one is of another
            # timeline.
            table = group.timelines
            edges = {
                edge for base in table.bases for edge in (base.start, base.left, shared_below(table, base))
            }
            # Below a base that stands on nothing all is gap, though a branch may still hold some of it.
            bare = [base.cut.position for base in table.bases if base.start is None]
            if wanted is not None and bare and wanted.position < max(bare):
                return
            later = (cut for cut in held if wanted is None or cut.position > wanted.position)
            beside = [wanted, min(later, key=lambda cut: cut.position, default=None)]
            known = all(
                cut.position > retention.truncated_to(cut.timeline) for cut in beside if cut is not None
            )
            if wanted is not None and known and wanted not in edges and group.kept.readable(wanted):
                raise Violation(f"L4: {site.name} gave up {utc_ns}, which is {wanted}") from None
            return
        if found != wanted:
            raise Violation(f"L4: {site.name} takes {utc_ns} for {found}, not {wanted}")
