"""The operator's tasks about branches, and holding what a restore goes back to.

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
from protocol.errors import FarshoreError
from protocol.positions import Cut
from tests.sim.history import Violation
from tests.sim.mortal import ProcessDied
from tests.sim.shape import SHORT_WINDOW_S, Task
from tests.sim.sim_site import SimSite

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

HELD_THERE_S = 20.0


class BranchTasks:
    """`_lanes` are those of a branch that a site drops, by its name."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._lanes: dict[tuple[str, int], set[int]] = {}

    def drop(self, site: SimSite, group: Group, rng: random.Random) -> bool:
        """Drop one of the branches that a site holds. FarshoreError or OSError: production's answer."""
        known = branches(group)
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

    def hold_there(self, site: SimSite, group: Group, cut: Cut) -> None:
        """Before a restore, so that the peer does not truncate the cut before it hears of that. Only where it
        is likely to."""
        there = self._sim.other(site).group
        short = group.settings.window_s == SHORT_WINDOW_S
        if short and there is not None and cut.timeline in there.timelines and there.kept.readable(cut):
            there.kept.timed.hold("restore", cut, HELD_THERE_S)
