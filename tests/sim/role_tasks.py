"""The operator's tasks that move roles: switchover, takeover, opening a split secondary, resync, failback.

Each checks what `daemon.operations` checks before it asks the site; what the peer would answer to a question
is looked up directly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.group.site_state import Role
from engine.peering.pair_states import PairState
from protocol.errors import FarshoreError
from site_primary.shipping.comparison import Choice
from site_primary.shipping.shipper import Shipper
from tests.sim.history import Violation
from tests.sim.mortal import ProcessDied
from tests.sim.sim_site import GROUP, SimSite

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

DETACH_AFTER_S = 0.2
STUCK = (PairState.SPLIT, PairState.DIVERGED, PairState.TAKEN_OVER, PairState.SUSPENDED)


class RoleTasks:
    """Each returns whether there was something to do. FarshoreError or OSError: production's answer."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def switchover(self, site: SimSite) -> bool:
        """Hand the group over to the other site."""
        process, group = site.process, site.group
        if process is None or group is None or not process.role.writes or group.handed_to:
            return False
        if self._shipper(site) is None:
            return False
        self._recording(site, lambda: process.pairs.hand_over(group))
        return True

    def takeover(self, site: SimSite) -> bool:
        """Write here from now on: the other site does not answer, or does not write either."""
        process, group = site.process, site.group
        if process is None or group is None or not group.head or group.failed:
            return False
        if process.role is Role.PRIMARY and group.handed_to in ("", site.name):
            return False
        if self._answers(site):
            return False
        known = group.timelines.generation()
        self._recording(site, lambda: process.pairs.take_over(group, PairState.TAKEN_OVER))
        self._sim.laws.chosen(site)
        self._sim.laws.turning.discard(site.name)  # the operator's later word
        if process.generation <= known:
            raise Violation(f"{site.name} took over by {process.generation}, and {known} was known there")
        return True

    def _answers(self, site: SimSite) -> bool:
        """Whether the other site would say that it writes the group."""
        there = self._sim.other(site)
        apart = any(
            self._sim.network.is_stalled(*way) for way in ((site.name, there.name), (there.name, site.name))
        )
        if not there.serving or apart or there.process is None or GROUP not in there.process.groups:
            return False
        return there.process.role is not Role.SECONDARY

    def _recording(self, site: SimSite, change: Callable[[], None]) -> None:
        """Carry out a change that writes a record, and tell the oracle."""
        oracle = self._sim.oracles[site.name]
        oracle.begin(oracle.live)
        try:
            change()
        except ProcessDied:
            raise
        except (FarshoreError, OSError):
            oracle.fail(oracle.live)
            raise
        oracle.finish(oracle.live)

    def split(self, site: SimSite) -> bool:
        """Pause the pair."""
        process, shipper = site.process, self._shipper(site)
        if process is None or shipper is None or shipper.state is PairState.SPLIT:
            return False
        process.pairs.split(GROUP)
        self._sim.laws.turning.discard(site.name)
        return True

    def detach(self, site: SimSite) -> bool:
        """Open a split pair's secondary to hosts, soon after a split."""
        if not self.split(site):
            return self._open(site)
        self._sim.world.schedule(DETACH_AFTER_S, lambda: self._open_later(self._sim.other(site)))
        return True

    def _open(self, site: SimSite) -> bool:
        process, group = site.process, site.group
        if process is None or group is None or not site.serving or process.role is not Role.SECONDARY:
            return False
        receiver = process.receivers.get(GROUP)
        if receiver is None or receiver.state is not PairState.SPLIT:
            return False
        process.pairs.detach(group)
        self._sim.laws.turning.discard(site.name)  # the operator's later word, as with a takeover
        return True

    def _open_later(self, site: SimSite) -> None:
        with contextlib.suppress(FarshoreError, OSError):
            self._open(site)

    def resync(self, site: SimSite, choice: Choice) -> bool:
        """Go on where the pair is stuck, by `choice`."""
        process, group, shipper = site.process, site.group, self._shipper(site)
        if process is None or group is None or shipper is None or shipper.state not in STUCK:
            return False
        laws = self._sim.laws
        if choice is Choice.LOCAL:
            laws.may_leave.add(self._sim.other(site).name)
            laws.chosen(site)
        elif choice is Choice.REMOTE:
            laws.may_leave.add(site.name)
            laws.chosen(self._sim.other(site))
        laws.turning.discard(site.name)
        process.pairs.resync(group, choice)
        if choice is Choice.REMOTE:
            laws.turning.add(site.name)
        return True

    def mend(self, choice: Choice) -> None:
        """After all trouble: whatever still waits for an operator's word gets it."""
        if self._sim.laws.turned_back and self._nobody_writes():
            # The writer is an old copy from when the other site wrote. Where that one is open to hosts, the
            # newest is refused while it answers, and it goes on itself.
            newest = max(self._sim.sites, key=self._authority)
            for site in (newest, self._sim.other(newest)):
                with contextlib.suppress(FarshoreError, OSError):
                    if not self._answers(site):
                        self._sim.laws.may_leave.add(self._sim.other(site).name)
                        self.takeover(site)
                        break
        for site in self._sim.sites:
            shipper = self._shipper(site)
            if shipper is None:
                continue
            if shipper.state is PairState.SPLIT:
                self.resync(site, Choice.NONE)
            elif shipper.state is PairState.DIVERGED:
                self.resync(site, choice)

    def _nobody_writes(self) -> bool:
        """Whether both sites follow, or could if the other wrote, and neither was handed the group; one may
        be older than its group."""
        return all(site.serving and not self._may_write(site) for site in self._sim.sites)

    def _may_write(self, site: SimSite) -> bool:
        process, group = site.process, site.group
        if process is None:
            return False
        if group is None:  # not open, or not there
            return any(row.name == GROUP for row in process.state.groups())
        return process.role is Role.PRIMARY or group.handed_to == site.name

    def _authority(self, site: SimSite) -> tuple[int, int]:
        process, group = site.process, site.group
        return (
            (process.generation, group.end.position) if process is not None and group is not None else (0, 0)
        )

    def insist(self, site: SimSite) -> None:
        """Choose this site's history where the peer's could not be fetched."""
        shipper = self._shipper(site)
        if shipper is not None and shipper.state is PairState.SUSPENDED:
            self.resync(site, Choice.LOCAL)

    def _shipper(self, site: SimSite) -> Shipper | None:
        process = site.process
        return process.shippers.get(GROUP) if process is not None else None
