"""What goes wrong, when, and how it is mended."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.shape import Fault
from tests.sim.sim_network import Damage
from tests.sim.sim_site import SimSite

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

SITE_FAULTS = (
    Fault.KILL, Fault.POWER, Fault.DIE_IN_CHANGE, Fault.POWER_IN_CHANGE, Fault.STOP, Fault.SYNC_ERROR,
    Fault.WRITE_ERROR, Fault.DISK_FULL, Fault.COMMIT_ERROR, Fault.CLOCK_JUMP, Fault.OLD_COPY,
    Fault.UNREADABLE,
)  # fmt: skip


class Faults:
    """`count` of each kind that happened."""

    def __init__(self, sim: Simulation) -> None:
        self.count: dict[Fault, int] = dict.fromkeys(Fault, 0)
        self._sim = sim
        self._rng = sim.world.random

    def act(self, rng: random.Random) -> None:
        """Once in a while; every choice from `rng`."""
        self._rng = rng
        faults = self._sim.shape.faults
        if not any(faults.values()):
            return
        fault = self._rng.choices(list(faults), list(faults.values()))[0]
        self.count[fault] += 1
        if fault in SITE_FAULTS:
            site = self._rng.choice(self._sim.sites)
            self._sim.say(site.name, "fault", fault.value)
            self._at(site, fault)
        else:
            self._sim.say("", "fault", fault.value)
            self._between(fault)

    def _at(self, site: SimSite, fault: Fault) -> None:
        rng = self._rng
        match fault:
            case Fault.KILL | Fault.POWER:
                site.end(power=fault is Fault.POWER)
            case Fault.DIE_IN_CHANGE | Fault.POWER_IN_CHANGE:
                site.fuse.light(rng.choice((1, 2, 3, 5, 10, 30)), fault is Fault.POWER_IN_CHANGE)
            case Fault.STOP:
                self._sim.stop_cleanly(site)
            case Fault.SYNC_ERROR:
                site.disk.fail_next_sync(rng.choice((errno.EIO, errno.ENOSPC)))
            case Fault.WRITE_ERROR:
                site.disk.fail_next_write()
            case Fault.DISK_FULL:
                site.disk.capacity_bytes = site.disk.used_bytes() + rng.choice((0, 64 << 10, 300 << 10))
                self._later(rng.uniform(0.2, 3.0), lambda: self._free(site))
            case Fault.COMMIT_ERROR:
                rng.choice((site.state_file, site.index_file)).fail_next_commit(
                    rng.choice((errno.ENOSPC, errno.EIO))
                )
            case Fault.CLOCK_JUMP:
                site.jump(rng.choice((-3600.0, -1.0, 0.5, 86400.0)))
            case Fault.UNREADABLE:
                site.disk.unreadable_fetches += rng.choice((1, 1, 3))
            case Fault.OLD_COPY:
                self._copy(site)

    def _between(self, fault: Fault) -> None:
        rng, network = self._rng, self._sim.network
        here, there = (site.name for site in self._sim.sites)
        if rng.random() < 0.5:
            here, there = there, here
        heal_s = rng.choice((0.05, 1.0, 4.0, 9.0)) * rng.uniform(0.5, 1.5)
        match fault:
            case Fault.CUT:
                network.cut(here, there)
            case Fault.PART:
                network.part(here, there)
                self._later(heal_s, lambda: network.heal(here, there))
            case Fault.BLACKHOLE:
                network.blackhole(here, there)
                self._later(heal_s, lambda: network.heal(here, there))
            case Fault.SLOW:
                network.set_delay(here, there, 0.001, rng.choice((0.05, 0.5)))
                self._later(heal_s, lambda: network.set_delay(here, there, 0.0001, 0.01))
            case Fault.DAMAGE:
                for damage in rng.choices(list(Damage), (4, 1, 1, 1), k=rng.randint(1, 3)):
                    network.damage_next(here, there, damage)
            case Fault.BOTH_POWER:
                for site in self._sim.sites:
                    site.end(power=True)

    def _copy(self, site: SimSite) -> None:
        """Copy a site's directory while it is down for a moment, and put that back some time later."""
        site.end(power=False)
        copy, knew = site.copy(), self._sim.oracles[site.name].copy()

        def put_back() -> None:
            if not self._sim.trouble:
                return
            if site.process is not None:
                site.end(power=False)
            self._sim.say(site.name, "fault", "the copy is put back")
            site.put_back(copy)
            self._sim.oracles[site.name].put_back(knew)
            self._sim.laws.turned_back.add(site.name)

        self._later(self._rng.choice((0.1, 1.0, 4.0)) * self._rng.uniform(0.5, 1.5), put_back)

    def _later(self, delay_s: float, mend: Callable[[], None]) -> None:
        self._sim.world.schedule(delay_s, mend)

    def _free(self, site: SimSite) -> None:
        site.disk.capacity_bytes = 1 << 40

    def mend_everything(self) -> None:
        """No fault stays."""
        here, there = self._sim.sites
        network = self._sim.network
        network.heal(here.name, there.name)
        network.repair()
        # What was damaged may have been lost in the middle of a connection, which the port rules out.
        network.cut(here.name, there.name)
        for one, other in ((here, there), (there, here)):
            network.set_delay(one.name, other.name, 0.0001, 0.01)
            one.mend()
            one.knobs.settings = self._sim.shape.without_journal_limit()
