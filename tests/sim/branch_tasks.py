"""The operator's tasks about branches: dropping one, and choosing a cut of one to go back to.

Each checks what `daemon.operations` checks before it asks the site.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

from engine.group.group import Group
from engine.history.base_rows import load_pending
from engine.history.branch_drop import check_droppable
from engine.history.branches import Branch, branches, own_part
from engine.index.versions import LANE_PREFIX
from engine.peering.pair_states import PairState
from protocol.errors import FarshoreError
from protocol.positions import Cut
from tests.sim.history import Violation
from tests.sim.mortal import ProcessDied
from tests.sim.shape import SHORT_WINDOW_S, Task
from tests.sim.sim_site import GROUP, SimSite

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

HELD_THERE_S = 20.0


class BranchTasks:
    """`_gone_back_to` are timelines off the head's lineage to which a volume was turned back, at either site;
    `_lanes` those of a branch that a site drops, by its name."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._gone_back_to: set[int] = set()
        self._lanes: dict[tuple[str, int], set[int]] = {}

    def drop(self, site: SimSite, group: Group, rng: random.Random) -> bool:
        """Drop one of the branches that a site holds. FarshoreError or OSError: production's answer."""
        known = [each for each in branches(group) if not self._needed(group, each.end)]
        if not known:
            return False
        self._begin(site, group, rng.choice(known))
        return True

    def drop_all(self, site: SimSite) -> None:
        """Those that may go."""
        group = site.group
        assert group is not None
        for branch in branches(group):
            with contextlib.suppress(FarshoreError):
                self._begin(site, group, branch)
                self._sim.operator.done[Task.DROP] += 1

    def _begin(self, site: SimSite, group: Group, branch: Branch) -> None:
        process = site.process
        assert process is not None
        check_droppable(group, branch)
        own = [(span.timeline, span.start) for span in own_part(group, branch)]
        self._lanes[site.name, branch.timeline] = {group.timelines.get(each).lane for each, _ in own}
        try:
            process.drops(group).begin(branch)
        except ProcessDied:
            self._sim.oracles[site.name].dropped(own)
            raise
        self._sim.oracles[site.name].dropped(own)

    def _needed(self, group: Group, end: Cut) -> bool:
        """Whether a volume was turned back to what leads there, which this site may not have heard of yet."""
        lineage = group.timelines.lineage(end.timeline, end.position)
        return not self._gone_back_to.isdisjoint(span.timeline for span in lineage)

    def dropped(self, site: SimSite, branch: int) -> None:
        """A branch is gone: what the index had of it, too, or the next one in its lane shows that."""
        group = site.group
        lanes = self._lanes.pop((site.name, branch), set())
        if group is None:
            return
        with group.store.read() as transaction:
            pending = load_pending(transaction)
            named = {each.lane for each in group.timelines.all()}
            named |= {each.lane for each in group.timelines.bases}
            named |= {pending.lane} if pending is not None else set()
            cursor = transaction.cursor("versions")
            for lane in sorted(lanes - named):
                prefix = LANE_PREFIX.pack(lane)
                if cursor.set_range(prefix) and cursor.key().startswith(prefix):
                    raise Violation(
                        f"{site.name} dropped {branch:016x}: lane {lane} has {cursor.key().hex()}"
                    )

    # -- going back to one

    def some_cut(self, site: SimSite, group: Group, rng: random.Random) -> Cut | None:
        """A boundary of a branch that the peer has as well, or is not asked for."""
        history, oracle = self._sim.history, self._sim.oracles[site.name]
        known = []
        for branch in branches(group):
            for span in branch.spans:
                end = min(span.end, oracle.durable.get(span.timeline, 0))
                known += [
                    cut
                    for cut, moment in history.moments.items()
                    if cut.timeline == span.timeline and span.start < cut.position <= end and moment.contents
                ]
        known = [cut for cut in known if group.kept.readable(cut) and self._there_or_away(site, cut)]
        cut = rng.choice(known) if known else None
        if cut is not None:
            self._gone_back_to.add(cut.timeline)
        return cut

    def _there_or_away(self, site: SimSite, cut: Cut) -> bool:
        """As `engine.peering.restore_ways` asks."""
        process, there = site.process, self._sim.other(site).group
        shipper = process.shippers.get(GROUP) if process is not None else None
        if there is None or shipper is None or not shipper.connected or shipper.sends_base:
            return True
        if shipper.state not in (PairState.PAIRED, PairState.COPYING):
            return True
        return there.holds_cut(cut) and there.kept.readable(cut)

    def hold_there(self, site: SimSite, group: Group, cut: Cut) -> None:
        """Before a restore, so that the peer does not truncate the cut before it hears of that. Only where it
        is likely to."""
        there = self._sim.other(site).group
        short = group.settings.window_s == SHORT_WINDOW_S or cut.timeline in self._gone_back_to
        if short and there is not None and cut.timeline in there.timelines and there.kept.readable(cut):
            there.kept.timed.hold("restore", cut, HELD_THERE_S)
