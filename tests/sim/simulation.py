"""One seed: two sites, their hosts, an operator and everything that goes wrong, until all is well again.

    1. set up      volumes made, pair created
    2. trouble     hosts write, the operator works, faults happen, sites are started again
    3. heal        everything mended, both sites started anew, hosts write a little more
    4. converge    within bounded virtual time one site writes, both hold the same, and it is what the oracle
                   says; what lost is readable as a branch

Everything is an event of one queue and every choice comes from one generator, so a seed is a run.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from daemon.peers import PeerOptions
from engine.group.group import Group
from engine.group.site_state import Role
from engine.peering.pair_states import PairState
from protocol.events import VolumeCreated
from protocol.limits import SECTOR_BYTES
from protocol.positions import POSITION_MAX
from site_primary.shipping.comparison import Choice
from tests.sim.content import Content, copied
from tests.sim.faults import Faults
from tests.sim.history import History, Violation
from tests.sim.hosts import Host
from tests.sim.laws import Laws
from tests.sim.looks import check_backups, check_branches, check_journal
from tests.sim.mortal import ProcessDied
from tests.sim.operator import Operator
from tests.sim.oracle import Oracle
from tests.sim.shape import Focus, Task, focused, shape_of
from tests.sim.sim_network import SimNetwork
from tests.sim.sim_site import GROUP, GROUP_ID, SimSite, SiteKnobs
from tests.sim.tidying import tidy_up
from tests.sim.trace import Trace
from tests.sim.world import SimWorld

SETUP_S = 5.0
LAST_WRITES_S = 0.5
CONVERGE_S = 60.0
CHANGE_MIND_S = 25.0
CHECKPOINTED_S = 30.0  # of one that failed and is tried again, with a slow indexer
KEPT_NOTES = 4000
NEVER = ("group.failed", "peer.bad_message", "peer.session_failed")
RESTART_DELAYS_S = (0.01, 0.3, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """A smaller life of the same seed: trouble ends after `life_s`, and of what operator and chance would do
    only the actions with these numbers happen. None: as the seed has it."""

    life_s: float | None = None
    keep: frozenset[int] | None = None


WHOLE = Trim()


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


class Simulation:
    """See the module's docstring. `Witness` of both its sites."""

    def __init__(self, seed: int, trim: Trim = WHOLE, focus: Focus = ()) -> None:
        self.world = TracedWorld(seed)
        self.trace = Trace(self.world)
        self.shape = focused(shape_of(self.world.random), focus)
        self.actions = 0
        self._trim = trim
        self.network = SimNetwork(self.world)
        self.history = History()
        self.tags = 0
        self.starts = 0
        self.sites = (self._site("a", "b"), self._site("b", "a"))
        self.oracles = {site.name: Oracle(self.world, self.history, site.name) for site in self.sites}
        self.hosts: list[Host] = []
        self.laws = Laws(self)
        self.operator = Operator(self)
        self.faults = Faults(self)
        self.trouble = False
        self._writing = False
        self._choice = self.world.random.choice((Choice.LOCAL, Choice.REMOTE))

    def _site(self, name: str, peer: str) -> SimSite:
        shape = self.shape
        options = PeerOptions(
            rate_bytes_s=shape.rate_bytes_s,
            compress=shape.compression.name.lower(),
            windows=shape.rate_windows,
        )
        knobs = SiteKnobs(shape.settings, shape.indexer_delay_s, options, shape.sync_delay_s)
        return SimSite(self.world, self.network, name, peer, knobs, self)

    def other(self, site: SimSite) -> SimSite:
        """The peer."""
        return self.sites[0] if site is self.sites[1] else self.sites[1]

    def say(self, site: str, *fields: str) -> None:
        """Note what chance or the operator does."""
        self.world.note(site, *fields)
        self.trace.line(site, " ".join(fields))

    # -- watcher

    def opened(self, site: SimSite, group: Group) -> None:
        """See `Watcher.opened`."""
        self.laws.opened(site, group)

    def emitted(self, site: SimSite, event: str, fields: dict[str, Any]) -> None:
        """See `Watcher.emitted`."""
        self.world.note(site.name, event, *(f"{key}={fields[key]}" for key in sorted(fields)))
        self.trace.event(site.name, event, fields)
        if event in NEVER or (event == "group.damaged" and not self._set_aside(site)):
            raise Violation(f"{site.name}: {event} {fields}")
        if event == "journal.failed" and not site.sync_failed:
            raise Violation(f"{site.name}: no sync failed, and the journal did: {fields}")
        if event == "base.installed":
            self.laws.installed(site)
        if event == "branch.dropped":
            self.operator.branches.dropped(site, int(fields["timeline"], 16))
        if event == "pair.session":
            self.laws.session(site)
        if event == "pair.state" and fields["state"] == PairState.PAIRED.value:
            self.laws.paired(site)

    def _set_aside(self, site: SimSite) -> bool:
        """Whether the group could not be opened as the disk failed, which is no damage."""
        process = site.process
        return process is not None and isinstance(process.damaged[GROUP].__cause__, OSError)

    def changed(self, site: SimSite) -> None:
        """See `Watcher.changed`."""
        self.trace.look(site)
        self.laws.believed(site)

    def settled(self, site: SimSite) -> None:
        """See `Watcher.settled`."""
        self.trace.look(site)
        self.laws.look(site)

    def gone(self, site: SimSite) -> None:
        """See `Watcher.gone`."""
        self.trace.line(site.name, "ended")
        self.laws.turning.discard(site.name)
        for host in self.hosts:
            host.lost(site)
        self.world.schedule(self._restart_delay_s(), lambda: self._start(site))

    # -- starting and stopping

    def _restart_delay_s(self) -> float:
        rng = self.world.random
        return rng.choice(RESTART_DELAYS_S) * rng.uniform(0.5, 1.5)

    def _start(self, site: SimSite) -> None:
        if site.process is not None:
            return
        self.starts += 1
        site.start()

    def stop_cleanly(self, site: SimSite) -> None:
        """As an operator does; its hosts are sent away first."""
        if site.serving:
            for host in self.hosts:
                host.leave(site)
            site.stop()

    def _keep(self) -> None:
        """The service manager: a site that stopped serving is started again."""
        for site in self.sites:
            process, group = site.process, site.group
            if process is None or not site.serving:
                continue
            why = group.failed if group is not None else "; ".join(map(str, process.damaged.values()))
            if why:
                self.world.note(site.name, "restarted after", why)
                site.end(power=False)

    # -- running

    def _act(self, act: Callable[[random.Random], None]) -> Callable[[], None]:
        """An action with a number and a generator of its own: left out, it leaves all others as they are."""

        def run() -> None:
            rng = random.Random(self.world.random.getrandbits(64))
            number, self.actions = self.actions, self.actions + 1
            if self._trim.keep is None or number in self._trim.keep:
                act(rng)
                for site in self.sites:
                    self.settled(site)

        return run

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
                next(site for site in self.sites if site.name == died.site).end(power=died.power)

    def run(self) -> None:
        """All four parts. Violation if something does not hold."""
        self._set_up()
        self.trouble = self._writing = True
        self._hosts_begin()
        self._every(self.shape.fault_every_s, self._act(self.faults.act), lambda: self.trouble)
        self._every(self.shape.task_every_s, self._act(self.operator.act), lambda: self.trouble)
        self._every(0.5, self._keep, lambda: True)
        self._every(0.05, self._look, lambda: True)
        self.run_until(lambda: False, self._trim.life_s or self.shape.duration_s)
        self._heal()
        self.converge()
        self._last_look()
        if self.shape.tasks.get(Task.DROP):
            tidy_up(self)
            self._last_look()

    def let_hosts_write(self) -> None:
        """For a moment, once they have stopped."""
        self._writing = True
        self._hosts_begin()
        self.run_until(lambda: False, LAST_WRITES_S)
        self._writing = False

    def _hosts_begin(self) -> None:
        for host in self.hosts:
            self._every(self.shape.load.think_s, host.act, lambda: self._writing)

    def _look(self) -> None:
        for site in self.sites:
            self.laws.believed(site)
            self.settled(site)

    def _set_up(self) -> None:
        for site, off_s in zip(self.sites, self.shape.clocks_off_s, strict=True):
            site.jump(off_s)
            site.start()
        first, second = self.sites
        process = first.process
        assert process is not None
        group = process.create_group(GROUP, GROUP_ID, Role.PRIMARY)
        oracle = self.oracles[first.name]
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
            second.fuse.light(self.world.random.randint(1, 6), power=False)
        process.pairs.create(process.groups[GROUP], second.name, self.shape.mode)
        load = self.shape.load
        for number in range(load.hosts):
            self.hosts.append(Host(self, f"host{number}", f"v{number % len(self.shape.volumes)}"))

    def _heal(self) -> None:
        """The end of all trouble. A site that serves may be left running: it must mend by itself, but for
        what waits for an operator."""
        rng = self.world.random
        self.trouble = False
        self.say("", "all faults end")
        self.faults.mend_everything()
        for site in self.sites:
            stays = site.serving and self.shape.settings.journal_limit_bytes == POSITION_MAX
            if site.process is not None and not (stays and rng.random() < 0.4):
                site.end(power=rng.random() < 0.3)
            self._start(site)
            if site.process is None:
                raise Violation(f"{site.name} does not start although everything was mended")
        self._mend()
        self._every(1.0, self._mend, lambda: True)
        self.world.schedule(CHANGE_MIND_S, self._choose_local)
        self.run_until(lambda: False, LAST_WRITES_S if rng.random() < 0.7 else 0.0)
        self._writing = False

    def _choose_local(self) -> None:
        """The other history cannot be had any more where its journal was truncated."""
        self._choice = Choice.LOCAL
        for site in self.sites:
            self.operator.roles.insist(site)

    def _mend(self) -> None:
        for site in self.sites:
            if site.serving:
                self.operator.online(site)
        self.operator.roles.mend(self._choice)

    def _converged(self) -> bool:
        writer = self.laws.writer()
        if writer is None or writer.process is None or GROUP not in writer.process.shippers:
            return False
        here, there = writer.group, self.other(writer).group
        if here is None or there is None:
            return False
        shipper = writer.process.shippers[GROUP]
        return (
            shipper.state is PairState.PAIRED
            and not here.failed
            and not here.holds
            and here.writer.durable == here.writer.written
            and here.end == there.end
            and here.head.digest == there.head.digest
            and shipper.marks.remote_durable == here.writer.written == there.writer.durable
        )

    def converge(self) -> None:
        """Violation if both sites do not become one within bounded time."""
        rates = (self.shape.rate_bytes_s, *(window.rate_bytes_s for window in self.shape.rate_windows))
        rate_bytes_s = min(filter(None, rates), default=0)
        sent_s = (
            max(each.end.position for each in self.oracles.values()) / rate_bytes_s if rate_bytes_s else 0
        )
        if not self.run_until(self._converged, CONVERGE_S + sent_s):
            raise Violation("L3: no convergence: " + "; ".join(self._standing(site) for site in self.sites))
        if not self.run_until(self._checkpointed, CHECKPOINTED_S):
            raise Violation("a checkpoint waits for what does not come")

    def _checkpointed(self) -> bool:
        """Whether no checkpoint is under way, at either site."""
        return not any(site.group is not None and site.group.checkpoints.running for site in self.sites)

    def _standing(self, site: SimSite) -> str:
        process, group = site.process, site.group
        if process is None or group is None:
            return f"{site.name} is not there"
        shipper = process.shippers.get(GROUP)
        why = f"{shipper.state.value} {shipper.reason}" if shipper is not None else "no shipper"
        return f"{site.name} {process.role.value} of {process.generation} at {group.end}, {why}"

    def _last_look(self) -> None:
        """Everything that was ever promised, at both sites."""
        for site in self.sites:
            group, process = site.group, site.process
            if group is None or process is None:
                raise Violation(f"{site.name} has no open group at the end")
            check_journal(self.history, site.name, group)
            check_branches(self.history, site.name, group)
            self.operator.audit(site, cuts=12)
            check_backups(self.history, site.name, group, whole=True)
            self.world.note(site.name, "end", process.role.value, str(group.end), group.head.digest)
