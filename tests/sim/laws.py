"""What must hold between two sites: who may write, what they believe of each other, what may be left.

one writer      a frame is new only at the site whose timeline it is, while that site durably writes
authority       a site that heard of a newer authority acknowledges nothing any more
hand-over       durable where it was said before another site sees it
sealed          said of a timeline only if no site holds more of it
no tail left    of what another site wrote, without an operator's word
belief (L3)     what a shipper believes of the peer is so, and the peer never takes it back
hosts           after every message, task and fault: connected only where this site writes by the newest
                authority that it heard of, gave nothing away, has not failed, and no operator chose the other
                history, of which it lacks some
paired          what a host was told is durable, and the peer knows to have been durable, is on the head of a
                pair that calls itself paired, unless an operator chose otherwise
following       who calls its pair paired is followed: no host writes at the other site
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.group.group import Group
from engine.group.site_state import Role
from engine.peering.pair_states import Mode, PairState
from protocol.events import EventKind
from protocol.frames import Frame, decode_rows
from protocol.positions import Cut
from tests.sim.history import Violation, began
from tests.sim.looks import check_backups
from tests.sim.sim_site import GROUP, SimProcess, SimSite

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation


class Laws:
    """See the module's docstring. `may_leave`: sites at which an operator gave up what the other wrote, or
    their own, until the pair is in sync. `turning`: those that are to go on with the other's history, until
    they have it. `turned_back`: those that an old copy of their directory was put back at, ever."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.may_leave: set[str] = set()
        self.turning: set[str] = set()
        self.turned_back: set[str] = set()
        self._flushed: dict[int, int] = {}  # by timeline, up to where hosts were told that it is durable
        # What a site had of timelines before it came back last, and the session in which it may have said so.
        self._had: dict[str, tuple[int, dict[int, int]]] = {}

    # -- a site comes back

    def opened(self, site: SimSite, group: Group) -> None:
        """Check what came back before anyone can ask for it."""
        power = site.down_since_power or site.sync_failed
        oracle = self._sim.oracles[site.name]
        if group.head or oracle.taken:
            self._had[site.name] = (self._session(self._sim.other(site)), dict(oracle.taken))
            left = oracle.recovered(group, power=power)
            if left is not None:
                self._left(site, left)
            check_backups(self._sim.history, site.name, group, whole=False)
        group.listeners.frame.append(lambda frame: self._took(site, group, frame))
        group.listeners.durable.append(lambda: self._durable(site, group))

    # -- frames

    def _durable(self, site: SimSite, group: Group) -> None:
        if group.writer.timeline == group.head.timeline:
            self._sim.oracles[site.name].says_durable(group.head.timeline, group.writer.durable)

    def _took(self, site: SimSite, group: Group, frame: Frame) -> None:
        oracle = self._sim.oracles[site.name]
        taken = oracle.apply(frame)
        if taken.new:
            self._wrote(site, frame)
        elif any(host.connected_to(site) for host in self._sim.hosts):
            raise Violation(f"L2: hosts of {site.name} are connected while frames come from elsewhere")
        if taken.before is not None:
            self._left(site, taken.before)
        if frame.prefix.timeline == group.head.timeline and began(frame) is not None:
            oracle.says_durable(group.head.timeline, frame.prefix.end)
        if not taken.new:
            self._look_for_hand_over(site, frame)

    def _wrote(self, site: SimSite, frame: Frame) -> None:
        process, there = site.process, self._sim.other(site)
        assert process is not None
        cut = Cut(frame.prefix.timeline, frame.prefix.end)
        if not process.role.writes:
            raise Violation(f"{site.name} writes {cut} and is {process.role.value}")
        receiver = process.receivers.get(GROUP)
        told = receiver is not None and receiver.state is PairState.PAIRED and self.in_session(there)
        if told and process.role is Role.DETACHED:
            raise Violation(f"{site.name} writes {cut} and has heard that the pair is paired")
        record = began(frame)
        # An old copy does not know what it had shipped; it asks first, and may find nobody to ask. Nor does
        # anybody know of frames that both had lost before a copy of the peer brought them back.
        old = {site.name, there.name} & self.turned_back
        if record is not None and record.sealed and record.parent and not old:
            more = self._sim.oracles[there.name].taken.get(record.parent, 0)
            if more > record.fork:
                raise Violation(f"{cut} seals its parent at {record.fork}: {there.name} holds it to {more}")
        if there.process is not None and self.in_session(site):
            until_ns = there.process.complete_until_ns(GROUP)
            if frame.prefix.utc_ns <= until_ns:
                raise Violation(
                    f"L4: a frame says {frame.prefix.utc_ns}, and the peer has all until {until_ns}"
                )

    def _left(self, site: SimSite, before: Cut) -> None:
        """The head of a site is elsewhere now: what is left must be its writer's own, or given up."""
        history = self._sim.history
        end = self._sim.oracles[site.name].end
        writer = history.tree.writers[end.timeline]
        others = [t for t in history.tree.tail(before, end) if history.tree.writers[t] != writer]
        if others and site.name not in self.may_leave:
            raise Violation(f"{site.name} leaves {before} for {end} and nobody said that it may")

    def _look_for_hand_over(self, site: SimSite, frame: Frame) -> None:
        if frame.prefix.payload_bytes or decode_rows(frame.prefix, frame.raw)[0][0] != EventKind.HAND_OVER:
            return
        there = self._sim.other(site).name
        timeline, end = frame.prefix.timeline, frame.prefix.end
        if self._sim.history.tree.writers[timeline] != there:
            return  # an old copy gets its own word back from who was given the group
        if self._sim.oracles[there].durable.get(timeline, 0) < end:
            raise Violation(f"{site.name} sees a hand-over at {end} that is not durable at {there}")

    def installed(self, site: SimSite) -> None:
        """A base was put in place of frames that the other site no longer has."""
        if site.group is not None:
            self._left(site, self._sim.oracles[site.name].installed(site.group.end))

    # -- hosts

    def acknowledged(self, site: SimSite, after: Cut | None) -> None:
        """A host of this site's was just told that its write, somewhere after a cut, is there; None if there
        was nothing to write."""
        process = site.process
        if process is None:
            raise Violation(f"a host of {site.name} is answered by nobody")
        if not process.role.writes:
            raise Violation(f"{site.name} acknowledges a write and is {process.role.value}")
        own = process.generation
        if process.role is Role.PRIMARY and process.learned > own:
            raise Violation(
                f"{site.name}, of generation {own}, acknowledges after it heard {process.learned}"
            )

        pair = process.state.pair(GROUP)
        in_force = pair is not None and pair.mode is not Mode.ASYNC and not pair.fallen_back
        if in_force and after is not None and process.role is Role.PRIMARY:
            self._at_the_peer(site, after)

    def _at_the_peer(self, site: SimSite, after: Cut) -> None:
        """In a synchronous mode that is in force: what hosts are told is written, the peer has too, or had
        when it said so: a power loss there may come before its word is here."""
        there = self._sim.other(site).name
        end = self._sim.oracles[site.name].end
        held = self._sim.oracles[there].taken.get(end.timeline, 0)
        session, had = self._had.get(there, (0, {}))
        if session and session == self._session(site):
            held = max(held, had.get(end.timeline, 0))
        if held <= after.position and held < end.position:
            raise Violation(f"{site.name} acknowledges what comes after {after}: {there} has {held} of {end}")

    def look(self, site: SimSite) -> None:
        """Whether the hosts that are connected to a site may be."""
        names = [host.name for host in self._sim.hosts if host.connected_to(site)]
        process, group = site.process, site.group
        if not names or process is None or group is None:
            return
        why = ""
        if not process.role.writes:
            why = f"it is {process.role.value}"
        elif process.role is Role.PRIMARY and process.learned > process.generation:
            why = f"it heard of authority {process.learned} and has {process.generation}"
        elif group.handed_to not in ("", site.name):
            why = f"it was handed to {group.handed_to}"
        elif group.failed:
            why = group.failed
        elif site.name in self.turning and not self._has_all(site):
            why = "it is to go on with the other site's history, and has not all of it"
        if why:
            raise Violation(f"L2: {', '.join(names)} may not be connected to {site.name}: {why}")

    def _has_all(self, site: SimSite) -> bool:
        """Whether a site's head goes on from all that the other site's has."""
        oracles = self._sim.oracles
        return self._sim.history.tree.holds(oracles[site.name].end, oracles[self._sim.other(site).name].end)

    def session(self, site: SimSite) -> None:
        """A shipper compared: a choice of the other's history is carried out once all of it is here."""
        if self._has_all(site):
            self.turning.discard(site.name)

    def flushed(self, cut: Cut) -> None:
        """A host was told that everything up to a cut is durable."""
        self._flushed[cut.timeline] = max(self._flushed.get(cut.timeline, 0), cut.position)

    def chosen(self, site: SimSite) -> None:
        """An operator chose what this site has: whatever else was flushed is given up."""
        holds, end = self._sim.history.tree.holds, self._sim.oracles[site.name].end
        for timeline in [t for t, position in self._flushed.items() if not holds(end, Cut(t, position))]:
            del self._flushed[timeline]

    def paired(self, site: SimSite) -> None:
        """A site calls its pair paired."""
        self.turning.clear()  # both have one history, whoever chose which
        there = self._sim.other(site).process
        if there is not None and self.in_session(site) and there.role is not Role.SECONDARY:
            raise Violation(f"{site.name} calls its pair paired: the other site is {there.role.value}")
        if self._peer_went_on(site):
            return
        if self.may_leave:
            self.chosen(site)  # hosts of the other one were told things until the choice reached it
        self.may_leave.clear()
        history, peer = self._sim.history, self._sim.oracles[self._sim.other(site).name]
        for timeline, position in self._flushed.items():
            cut = Cut(timeline, position)
            newest = history.moments.get(Cut(timeline, peer.taken.get(timeline, 0)))
            known = newest is not None and newest.durable >= position
            if known and not history.tree.holds(self._sim.oracles[site.name].end, cut):
                raise Violation(
                    f"L1: paired at {self._sim.oracles[site.name].end} without {cut}, once flushed"
                )

    def _peer_went_on(self, site: SimSite) -> bool:
        """Whether the peer has ended the site's session and writes by itself, from all that the site has on:
        its last word of the session was still on its way. What it wrote since is on no branch."""
        tree, there = self._sim.history.tree, self._sim.other(site)
        end, newest = self._sim.oracles[site.name].end, self._sim.oracles[there.name].end
        return (
            not self.in_session(site)
            and newest != end
            and tree.holds(newest, end)
            and all(tree.writers[timeline] == there.name for timeline in tree.tail(newest, end))
        )

    # -- what a shipper believes

    def believed(self, site: SimSite) -> None:
        """What a site believes of the other one must be so."""
        process, here, there = site.process, site.group, self._sim.other(site).group
        if process is None or here is None or there is None:
            return
        shipper = process.shippers.get(GROUP)
        if shipper is None or not shipper.connected:
            return
        held = self._sim.history.tree.common(here.end, there.end)
        durable = Cut(here.head.timeline, shipper.marks.remote_durable)
        name, other = site.name, self._sim.other(site).name
        if other in self.turned_back and not self.in_session(site):
            return  # it was so, and will be found out with the next session
        if durable.position > held:
            raise Violation(f"L3: {name} believes {durable} durable, and {other} is at {there.end}")
        self._sim.oracles[other].told_durable(durable)
        written = Cut(here.head.timeline, shipper.marks.remote_written)
        # Without a session: a power loss may have taken what was only written.
        if self.in_session(site) and written.position > held:
            raise Violation(f"L3: {name} believes {written} written, and {other} is at {there.end}")

    @staticmethod
    def _session(site: SimSite) -> int:
        """In which a site ships; 0 for none."""
        shipper = site.process.shippers.get(GROUP) if site.process is not None else None
        return shipper.session.id if shipper is not None else 0

    def in_session(self, site: SimSite) -> bool:
        """Whether a site ships to the other one and both are in the same session."""
        here, there = site.process, self._sim.other(site).process
        shipper = here.shippers.get(GROUP) if here is not None else None
        receiver = there.receivers.get(GROUP) if there is not None else None
        if shipper is None or receiver is None or not shipper.connected:
            return False
        return shipper.session.id == receiver._session != 0

    # -- who writes, in the end

    def writer(self) -> SimSite | None:
        """The one site that is the primary; None if that is not so."""
        found = [site for site in self._sim.sites if site.process is not None and is_primary(site.process)]
        return found[0] if len(found) == 1 else None


def is_primary(process: SimProcess) -> bool:
    """Whether this site writes its group by its own authority, and did not give it away."""
    group = process.groups.get(GROUP)
    return group is not None and process.role is Role.PRIMARY and group.handed_to in ("", group.site)
