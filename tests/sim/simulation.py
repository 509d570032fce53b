"""One seed: two sites, their hosts, an operator and everything that goes wrong, until all is well again.

    1. set up      volumes made, pair created
    2. trouble     hosts write, the operator works, faults happen, sites are started again
    3. heal        everything mended, both sites started anew, hosts write a little more
    4. converge    within bounded virtual time both sites hold the same, and it is what the oracle says

Everything is an event of one queue and every choice comes from one generator, so a seed is a run.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import site_primary.nbd_connection
from engine.group import Group
from engine.pair_states import Mode, PairState
from engine.site_state import Role
from protocol.events import VolumeCreated
from protocol.frames import Frame
from protocol.limits import SECTOR_BYTES
from protocol.positions import POSITION_MAX, Cut
from site_primary.carrier import PeerTraffic
from site_primary.pace import Pace
from tests.sim.content import Content, copied
from tests.sim.faults import Faults
from tests.sim.hosts import Host
from tests.sim.mortal import ProcessDied
from tests.sim.operator import Operator
from tests.sim.oracle import ROOT, Oracle, Violation, began
from tests.sim.patching import patched
from tests.sim.shape import Patch, shape_of
from tests.sim.sim_network import SimNetwork
from tests.sim.sim_site import GROUP, GROUP_ID, SimSite, SiteKnobs
from tests.sim.world import SimWorld

SETUP_S = 5.0
LAST_WRITES_S = 0.5
CONVERGE_S = 60.0
KEPT_NOTES = 400
RESTART_DELAYS_S = (0.01, 0.3, 2.0)


@dataclass(slots=True)
class Result:
    """How a seed went. `violation` is empty if all held."""

    seed: int
    violation: str = ""
    trace_hash: str = ""
    virtual_s: float = 0.0
    steps: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class TracedWorld(SimWorld):
    """Keeps the last notes, to be read beside a violation."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.notes: deque[tuple[int, tuple[object, ...]]] = deque(maxlen=KEPT_NOTES)

    def note(self, *fields: object) -> None:
        """See `SimWorld.note`."""
        super().note(*fields)
        self.notes.append((self.now_ns, fields))

    def lines(self) -> tuple[str, ...]:
        """The notes as text."""
        return tuple(f"{now_ns / 1e9:10.6f} " + " ".join(map(str, fields)) for now_ns, fields in self.notes)


class HostLog:
    """In place of the NBD connections' logger: what they say of a healthy disk must not be an error."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def error(self, event: str, **fields: Any) -> None:
        """Failed writes are answers to the hosts; a read never fails."""
        self._sim.world.note(event, fields.get("error", ""))
        if event != "nbd.write_failed":
            raise Violation(f"L1: {event} {fields}")

    def warning(self, event: str, **fields: Any) -> None:
        """Hosts here send no garbage."""
        raise Violation(f"{event} {fields}")


class Simulation:
    """See the module's docstring. `Witness` of both its sites."""

    def __init__(self, seed: int) -> None:
        self.world = TracedWorld(seed)
        self.shape = shape_of(self.world.random)
        self.network = SimNetwork(self.world)
        self.oracle = Oracle(self.world)
        self.tags = 0
        self.starts = 0
        self.primary = self._site("a", "b")
        self.secondary = self._site("b", "a")
        self.hosts: list[Host] = []
        self.operator = Operator(self)
        self.faults = Faults(self)
        self._trouble = False
        self._writing = False
        # What the secondary has told the primary that it has, as a cut of the primary's journal.
        self.told_written = ROOT
        self.told_durable = ROOT

    def _site(self, name: str, peer: str) -> SimSite:
        shape = self.shape
        traffic = PeerTraffic(pace=Pace(shape.rate_bytes_s), compression=shape.compression)
        knobs = SiteKnobs(shape.settings, shape.indexer_delay_s, traffic)
        return SimSite(self.world, self.network, name, peer, knobs, self)

    # -- witness

    def opened(self, site: SimSite, group: Group) -> None:
        """See `Witness.opened`: check what came back before anyone can ask for it."""
        power = site.down_since_power or site.sync_failed
        if site is self.primary:
            if group.head:
                self.oracle.recovered(group, power=power)
                self.oracle.check_backups(site.name, group, whole=False)
                promised = [b for b in self.oracle.backups if not self.oracle.tree.holds(group.end, b.mark)]
                if promised:
                    raise Violation(f"L1: backup {promised[0].label} was answered and is gone")
            group.listeners.frame.append(self._primary_took)
        else:
            self._secondary_opened(group, power)
            group.listeners.frame.append(self._secondary_took)

    def _primary_took(self, frame: Frame) -> None:
        if not self.oracle.primary_wrote(frame):
            return
        there = self.secondary.process
        if there is not None and self.in_session():
            until_ns = there.complete_until_ns(GROUP)
            if frame.prefix.utc_ns <= until_ns:
                raise Violation(
                    f"L4: a frame says {frame.prefix.utc_ns}, and the peer has all until {until_ns}"
                )

    def _secondary_opened(self, group: Group, power: bool) -> None:
        self.oracle.check_journal("b", group)
        told = self.told_durable if power else self.told_written
        if not self._kept(told, group.end):
            raise Violation(f"L3: the secondary came back at {group.end} and had said it had {told}")
        if power:
            self.told_written = self.told_durable
        if group.end != ROOT:
            self.oracle.check_cut("b", group, group.end)
        self.oracle.check_backups("b", group, whole=False)

    def _kept(self, told: Cut, end: Cut) -> bool:
        """Whether the secondary has what it said, but for a tail that the primary lost and it has left."""
        tree = self.oracle.tree
        common = tree.common(told, end)
        followed = tree.holds(self.oracle.end, end) and common == tree.common(told, self.oracle.end)
        return common == told.position or followed

    def _secondary_took(self, frame: Frame) -> None:
        self.oracle.check_frame("b", frame)
        fork = began(frame)
        if fork is not None:
            self.told_written = self._before(self.told_written, fork)
            self.told_durable = self._before(self.told_durable, fork)

    def _before(self, told: Cut, fork: Cut) -> Cut:
        """What was said of a tail that is now a branch no longer counts."""
        return Cut(fork.timeline, min(self.oracle.tree.common(told, fork), fork.position))

    def emitted(self, site: SimSite, event: str, fields: dict[str, Any]) -> None:
        """See `Witness.emitted`."""
        self.world.note(site.name, event, *(f"{key}={fields[key]}" for key in sorted(fields)))
        if event in ("group.damaged", "peer.bad_message"):
            raise Violation(f"{site.name}: {event} {fields}")

    def gone(self, site: SimSite) -> None:
        """See `Witness.gone`."""
        if site is self.primary:
            for host in self.hosts:
                host.lost()
        self.world.schedule(self._restart_delay_s(), lambda: self._start(site))

    # -- starting and stopping

    def _restart_delay_s(self) -> float:
        rng = self.world.random
        return rng.choice(RESTART_DELAYS_S) * rng.uniform(0.5, 1.5)

    def _start(self, site: SimSite) -> None:
        if site.process is not None:
            return
        self.starts += 1
        try:
            site.start()
        except OSError as error:
            self.world.note(site.name, "start failed", str(error))

    def stop_cleanly(self, site: SimSite) -> None:
        """As an operator does; its hosts are sent away first."""
        process = site.process
        if process is None or not site.serving:
            return
        if site is self.primary:
            for host in self.hosts:
                host.leave()
        process.begin_stop(lambda: site.end(power=False))

    def _keep(self) -> None:
        """The service manager: a site that stopped serving is started again."""
        for site in (self.primary, self.secondary):
            if site.group is not None and site.group.failed and site.serving:
                self.world.note(site.name, "restarted after", site.group.failed)
                site.end(power=False)

    # -- running

    def _every(self, mean_s: float, act: Callable[[], None], going: Callable[[], bool]) -> None:
        def run() -> None:
            if going():
                act()
                self.world.schedule(self.world.random.expovariate(1 / mean_s), run)

        self.world.schedule(self.world.random.expovariate(1 / mean_s), run)

    def run_until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Run events; a process that dies in the middle of one is buried, and the rest goes on."""
        end_ns = self.world.now_ns + round(limit_s * 1e9)
        while True:
            try:
                return self.world.run_until(condition, (end_ns - self.world.now_ns) / 1e9)
            except ProcessDied as died:
                site = self.primary if died.site == self.primary.name else self.secondary
                site.end(power=died.power)

    def run(self) -> None:
        """All four parts. Violation if something does not hold."""
        self._set_up()
        self._trouble = self._writing = True
        for host in self.hosts:
            self._every(self.shape.load.think_s, host.act, lambda: self._writing)
        self._every(self.shape.fault_every_s, self.faults.act, lambda: self._trouble)
        self._every(self.shape.task_every_s, self.operator.act, lambda: self._trouble)
        self._every(0.5, self._keep, lambda: True)
        self._every(0.05, lambda: self.changed(self.primary), lambda: True)
        self.run_until(lambda: False, self.shape.duration_s)
        self._heal()
        self._converge()
        self._last_look()

    def _set_up(self) -> None:
        self.primary.start()
        self.secondary.start()
        process = self.primary.process
        assert process is not None
        group = process.create_group(GROUP, GROUP_ID, Role.PRIMARY)
        oracle = self.oracle
        group.begin_writing()
        for number, sectors in enumerate(self.shape.volumes):
            contents = {**copied(oracle.live), f"v{number}": Content(number, sectors)}
            oracle.begin(contents)
            group.append_records([VolumeCreated(name=f"v{number}", size_bytes=sectors * SECTOR_BYTES)])
            oracle.finish(contents)
        group.when_durable(lambda _: None)
        if not self.run_until(lambda: group.writer.durable == group.writer.written, SETUP_S):
            raise Violation("the first frames never became durable")
        oracle.flushed.cut, oracle.flushed.contents = oracle.end, copied(oracle.live)
        if self.world.random.random() < 0.15:
            self.secondary.fuse.light(self.world.random.randint(1, 6), power=False)
        process.pairs.create(process.groups[GROUP], self.secondary.name, Mode.ASYNC)
        load = self.shape.load
        for number in range(load.hosts):
            self.hosts.append(Host(self, f"host{number}", f"v{number % len(self.shape.volumes)}"))

    def _heal(self) -> None:
        """The end of all trouble. A site that serves may be left running: it must mend by itself."""
        rng = self.world.random
        self._trouble = False
        self.world.note("heal")
        self.faults.mend_everything()
        for site in (self.primary, self.secondary):
            stays = site.serving and self.shape.settings.journal_limit_bytes == POSITION_MAX
            if site.process is not None and not (stays and rng.random() < 0.4):
                site.end(power=rng.random() < 0.3)
            self._start(site)
            if site.process is None:
                raise Violation(f"{site.name} does not start although everything was mended")
        self.operator.online()
        self.operator.resync()
        self.run_until(lambda: False, LAST_WRITES_S if rng.random() < 0.7 else 0.0)
        self._writing = False

    def changed(self, site: SimSite) -> None:
        """See `Witness.changed`: what the primary believes of the secondary must be so."""
        process, here, there = self.primary.process, self.primary.group, self.secondary.group
        if site is not self.primary or process is None or here is None or there is None:
            return
        shipper, end = process.shippers.get(GROUP), there.end
        if shipper is None or not shipper.connected:
            return
        held = self.oracle.tree.common(here.end, end)
        durable = Cut(here.head, shipper.marks.remote_durable)
        if durable.position > held:
            raise Violation(f"L3: the primary believes {durable} durable, and the secondary is at {end}")
        if durable.position > self.told_durable.position:
            self.told_durable = durable
        written = Cut(here.head, shipper.marks.remote_written)
        if not self.in_session():
            return  # a power loss may have taken what was only written
        if written.position > held:
            raise Violation(f"L3: the primary believes {written} written, and the secondary is at {end}")
        if written.position > self.told_written.position:
            self.told_written = written

    def in_session(self) -> bool:
        """Whether both sites are in the same session."""
        here, there = self.primary.process, self.secondary.process
        shipper = here.shippers.get(GROUP) if here is not None else None
        receiver = there.receivers.get(GROUP) if there is not None else None
        if shipper is None or receiver is None or not shipper.connected:
            return False
        return shipper._link.session == receiver._session != 0

    def _converged(self) -> bool:
        here, there = self.primary.group, self.secondary.group
        process = self.primary.process
        if process is None or here is None or there is None or GROUP not in process.shippers:
            return False
        shipper = process.shippers[GROUP]
        return (
            shipper.state is PairState.PAIRED
            and not here.failed
            and here.writer.durable == here.writer.written
            and here.end == there.end
            and here.digest == there.digest
            and shipper.marks.remote_durable == here.writer.written == there.writer.durable
        )

    def _converge(self) -> None:
        if self.run_until(self._converged, CONVERGE_S):
            return
        process = self.primary.process
        shipper = process.shippers.get(GROUP) if process is not None else None
        here = self.primary.group.end if self.primary.group is not None else None
        there = self.secondary.group.end if self.secondary.group is not None else None
        why = f"{shipper.state.value}: {shipper.reason}" if shipper is not None else "no shipper"
        raise Violation(f"L3: no convergence: primary {here}, secondary {there}, {why}")

    def _last_look(self) -> None:
        """Everything that was ever promised, at both sites."""
        for site in (self.primary, self.secondary):
            group = site.group
            if group is None:
                raise Violation(f"{site.name} has no open group at the end")
            self.oracle.check_journal(site.name, group)
            self.operator.audit(site, cuts=12)
            self.oracle.check_backups(site.name, group, whole=True)
            self.world.note(site.name, "end", str(group.end), group.digest)


def run_seed(seed: int, patches: tuple[Patch, ...] = ()) -> Result:
    """Run one seed, with production patched as given (a planted bug)."""
    result = Result(seed)
    sim = Simulation(seed)
    with ExitStack() as stack:
        stack.enter_context(patched(sim.shape.patches))
        stack.enter_context(patched(((site_primary.nbd_connection, "log", HostLog(sim)),)))
        stack.enter_context(patched(patches))
        try:
            sim.run()
        except Violation as violation:
            result.violation = str(violation)
        except Exception as error:
            where = traceback.format_exc(limit=-8)
            result.violation = f"unexpected {type(error).__name__}: {error}\n{where}"
    result.trace_hash = sim.world.trace_hash()
    result.virtual_s = sim.world.now_ns / 1e9
    result.steps = sim.world.steps
    result.notes = sim.world.lines() if result.violation else ()
    result.counts = {
        "frames": len(sim.oracle.moments),
        "acknowledged": sum(host.acknowledged for host in sim.hosts),
        "refused": sum(host.errors for host in sim.hosts),
        "starts": sim.starts,
        "checks": sim.oracle.checked,
        "backups": len(sim.oracle.backups),
        **{fault.value: count for fault, count in sim.faults.count.items()},
        **{task.value: count for task, count in sim.operator.done.items()},
    }
    return result
