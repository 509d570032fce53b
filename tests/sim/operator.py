"""The operator: backups, reverts, splits, and looks at what both sites hold."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from engine.bases import gap_at
from engine.cuts import checked_cut, cut_at_time
from engine.group import Group
from engine.pair_states import PairState
from protocol.errors import FarshoreError, Mismatch, NotFound, Trimmed
from protocol.positions import Cut
from site_primary.backup import take_backup
from site_primary.ship_start import Choice
from site_secondary.restore_volume import RestorePlan, carry_out, check_restored, plan_restore
from tests.sim.content import Contents, copied
from tests.sim.mortal import ProcessDied
from tests.sim.oracle import Backup, Violation
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

    def act(self) -> None:
        """Once in a while."""
        tasks = self._sim.shape.tasks
        task = self._rng.choices(list(tasks), list(tasks.values()))[0]
        process, group = self._sim.primary.process, self._sim.primary.group
        if process is None or group is None or not self._sim.primary.serving:
            return
        if task is Task.AUDIT:
            self.audit(self._sim.primary)
            self.audit(self._sim.secondary)
        elif not group.failed:
            try:
                self._carry_out(task, process, group)
            except (FarshoreError, OSError) as error:
                if isinstance(error, Mismatch):
                    raise Violation(f"{task.value}: {error}") from error
                self._sim.world.note("operator", task.value, str(error))
                return
        self.done[task] += 1

    def _carry_out(self, task: Task, process: SimProcess, group: Group) -> None:
        match task:
            case Task.BACKUP:
                self._backup(group, None)
            case Task.OLD_BACKUP:
                cut = self._some_cut()
                if cut is not None:
                    self._backup(group, cut)
            case Task.REVERT:
                self._revert(process, group)
            case Task.SPLIT:
                process.pairs.split(GROUP)
            case Task.RESYNC:
                self.resync()
            case Task.ONLINE:
                self.online()

    # -- backups and reverts

    def _some_cut(self) -> Cut | None:
        """A boundary of the primary's journal at which there are volumes."""
        line = self._sim.oracle.line
        known = [cut for cut in line if self._sim.oracle.moments[cut].contents and self._kept(cut)]
        return self._rng.choice(known) if known else None

    def _kept(self, cut: Cut) -> bool:
        """Whether both sites can read a cut: a revert to what the secondary gave up stops it."""
        groups = [site.group for site in (self._sim.primary, self._sim.secondary)]
        return all(
            group.folding.readable(cut)
            for group in groups
            if group is not None and cut.timeline in group.timelines
        )

    def _backup(self, group: Group, cut: Cut | None) -> None:
        oracle = self._sim.oracle
        self._labels += 1
        label = f"b{self._labels}"
        contents = copied(oracle.live if cut is None else oracle.moments[cut].contents)
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
                oracle.backups.append(backup)

        group.when_durable(durable)

    def _revert(self, process: SimProcess, group: Group) -> None:
        oracle = self._sim.oracle
        cut = self._some_cut()
        if cut is None:
            return
        checked_cut(group, cut)
        then = oracle.moments[cut].contents
        names = [name for name in sorted(then) if self._rng.random() < 0.7]
        if not names:
            return
        plan = plan_restore(group, names, cut, skip_missing=False)
        volumes = [volume.id for volume in plan.volumes]
        process.state.set_closed(group.name, volumes, f"turned back to {cut}")
        for volume in plan.volumes:
            process.exports.shut(group, volume)
        after = copied(oracle.live)
        for name in names:
            after[name] = then[name].copy()
            for floor in oracle.all_floors():
                floor.contents[name].may_become(then[name])
        self._append_revert(group, plan, after)
        check_restored(group, plan, self._rng)

        def durable(error: OSError | None) -> None:
            if error is None and process is self._sim.primary.process:
                with contextlib.suppress(OSError):
                    process.state.set_closed(group.name, volumes, None)

        group.when_durable(durable)

    def _append_revert(self, group: Group, plan: RestorePlan, after: Contents) -> None:
        oracle = self._sim.oracle
        before = oracle.live
        either = copied(before)
        for name, content in after.items():
            either[name].may_become(content)
        oracle.begin(after)
        try:
            carry_out(group, plan)
        except ProcessDied:
            oracle.interrupted(either)
            raise
        except (FarshoreError, OSError):
            oracle.fail(either)
            raise
        oracle.finish(after)

    # -- pairs and volumes

    def resync(self) -> None:
        """Where the pair is split."""
        process = self._sim.primary.process
        shipper = process.shippers.get(GROUP) if process is not None else None
        if process is not None and shipper is not None and shipper.state is PairState.SPLIT:
            process.pairs.resync(process.groups[GROUP], Choice.NONE)

    def online(self) -> None:
        """Open what a revert closed."""
        process, group = self._sim.primary.process, self._sim.primary.group
        if process is not None and group is not None:
            volumes = [volume.id for volume in group.volumes.at(group.spans()).values()]
            process.state.set_closed(group.name, volumes, None)

    # -- looking

    def audit(self, site: SimSite, cuts: int = 3) -> None:
        """Some cuts at a site, its newest, and a time."""
        group, oracle = site.group, self._sim.oracle
        if group is None or group.failed or not site.serving:
            return
        held = oracle.held(group.end)
        chosen = self._rng.sample(held, min(cuts, len(held)))
        if group.end in oracle.moments:
            chosen.append(group.end)
        for cut in chosen:
            if not group.folding.readable(cut):
                continue
            oracle.check_cut(site.name, group, checked_cut(group, cut))
        if site is self._sim.primary:
            oracle.check_live(group)
        oracle.check_backups(site.name, group, whole=False)
        if held:
            self._check_time(site, group, held)
        if site is self._sim.secondary and site.process is not None and self._sim.in_session():
            self._check_complete(group, site.process.complete_until_ns(GROUP))

    def _check_complete(self, group: Group, until_ns: int) -> None:
        """Up to the time that the secondary says, it holds all that the primary wrote."""
        oracle = self._sim.oracle
        held = set(oracle.held(group.end))
        for cut in oracle.line:
            if oracle.moments[cut].utc_ns <= until_ns and cut not in held:
                raise Violation(f"L4: the secondary calls itself complete until {until_ns} without {cut}")

    def _check_time(self, site: SimSite, group: Group, held: list[Cut]) -> None:
        """A time means the last frame written at or before it."""
        oracle = self._sim.oracle
        utc_ns = oracle.moments[self._rng.choice(held)].utc_ns + self._rng.choice((-1, 0, 1))
        early = [cut for cut in held if oracle.moments[cut].utc_ns <= utc_ns]
        wanted = max(early, key=lambda cut: cut.position, default=None)
        try:
            found = cut_at_time(group, utc_ns)
        except NotFound:
            found = None
        except Trimmed:
            floor = group.folding.floor()
            if wanted is None or gap_at(group.timelines, wanted) is not None:
                return
            if floor is None or wanted.position >= floor.position:
                raise Violation(f"L4: {site.name} gave up {utc_ns}, which is {wanted}") from None
            return
        if found != wanted:
            raise Violation(f"L4: {site.name} takes {utc_ns} for {found}, not {wanted}")
