"""Bugs planted in what is promised: to whom hosts talk, what is acknowledged, what the peer is taken to have.

Each is how this code once was, found by a seed that nobody had chosen.
"""

from __future__ import annotations

from typing import Any

import tests.sim.sim_indexer
from daemon.pairs import SitePairs
from engine.group.site_state import SiteState
from engine.history.watermarks import PeerMarks
from engine.index.checkpoint_timing import Checkpoints
from engine.journal.writer import JournalWriter
from engine.peering.pair_states import PairState, PairVerb
from engine.peering.role_moves import RoleMoves
from protocol.events import StrictMode
from site_primary.shipping.comparison import Verdict
from site_primary.shipping.host_wait import HostWait
from site_primary.shipping.shipper import Shipper
from site_secondary.receiver import Receiver
from tests.sim.plant_registry import plant, rare
from tests.sim.shape import Fault, Patch, Task

# -- who hosts talk to


@rare(Task.DETACH, Task.RESYNC_REMOTE, Task.ONLINE)
def hosts_stay_while_the_other_history_comes() -> tuple[Patch, ...]:
    """An operator's choice of the peer's history closes exports, and whoever opens them is served."""

    def choose(self: Any, choice: Any) -> None:
        self.choice = choice

    def taking_in(self: Any) -> None:
        pass

    return ((HostWait, "choose", choose), (HostWait, "taking_in", taking_in))


@rare(Fault.COMMIT_ERROR, Fault.PART, Task.TAKEOVER, Task.RESYNC)
def newer_authority_written_down_before_fencing() -> tuple[Patch, ...]:
    """A site that hears of a newer authority goes on serving if it cannot note that."""

    def superseded(
        self: Any, group: Any, by: str, generation: int = 0, before: Any = SitePairs.superseded
    ) -> None:
        self._state.set_heard(group.name, max(generation, self._state.heard(group.name)))
        before(self, group, by, generation)

    return ((SitePairs, "superseded", superseded),)


@plant
def detached_site_writes_in_a_paired_session() -> tuple[Patch, ...]:
    """Only frames send the hosts of a detached site away; a session with none leaves them."""
    return ((Receiver, "_try_engage", lambda self: True),)


@rare(Task.DETACH, Task.RESYNC)
def paired_before_the_peer_follows() -> tuple[Patch, ...]:
    """A pair is called paired once both are at one place, though a detached site's hosts may still write."""

    def ship(self: Any, start: Any, before: Any = Shipper._ship) -> None:
        before(self, start)
        caught_up = self.marks.remote_written >= self._goal
        if start.verdict is Verdict.SHIP and self.state is PairState.COPYING and caught_up:
            self._move(PairVerb.CAUGHT_UP)

    return ((Shipper, "_ship", ship),)


# -- what is acknowledged


@rare(Fault.WRITE_ERROR, Fault.DISK_FULL)
def strict_mode_half_in_force() -> tuple[Patch, ...]:
    """The row says that strict is in force, the journal cannot be told, and the gate stays open."""

    def promise(self: Any, group: Any) -> None:
        pair = self._state.pair(group.name)
        if pair is not None and pair.strict and not group.strict:
            group.append_records([StrictMode(on=True)])

    return ((SitePairs, "_promise_strict", promise),)


# -- what the peer has


@plant
def marks_of_the_last_session_count() -> tuple[Patch, ...]:
    """What the peer had in an earlier session is believed at the next comparison, although a power loss may
    have taken it since."""

    def compared(self: Any, start: Any, welcome: Any, before: Any = Shipper._compared) -> None:
        held = self.marks.remote_written
        before(self, start, welcome)
        self.marks.remote_written = max(held, self.marks.remote_written)

    return ((Shipper, "_compared", compared), (PeerMarks, "session_over", lambda self: None))


# -- moves and takeovers that do not come to their end


@rare(Fault.COMMIT_ERROR, Task.SWITCHOVER)
def hand_over_looked_for_once() -> tuple[Patch, ...]:
    """A hand-over that could not be taken is not looked for again."""

    def look(self: Any, group: Any, before: Any = RoleMoves._look_for_hand_over) -> None:
        clock = group.clock
        group.clock = _NoLater(clock)
        try:
            before(self, group)
        finally:
            group.clock = clock

    return ((RoleMoves, "_look_for_hand_over", look),)


class _NoLater:
    """A clock on which nothing is put off."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

    def call_later(self, delay_s: float, callback: Any) -> Any:
        """Forget it, if it is a second or more away."""
        return self._clock.call_later(delay_s, callback if delay_s < 1.0 else lambda: None)


@rare(Fault.COMMIT_ERROR, Task.DETACH, Task.RESYNC_LOCAL)
def checkpoint_waits_in_another_timeline() -> tuple[Patch, ...]:
    """A checkpoint that is tried again waits until the new head is durable to the old one's position."""

    def plan(self: Any, target: Any, before: Any = Checkpoints._plan) -> None:
        group = self._group
        if target.timeline == group.head.timeline or target.position <= group.writer.durable:
            before(self, target)
        else:
            group.writer.when_durable(target.position, lambda error: error or before(self, target))

    return ((Checkpoints, "_plan", plan), (tests.sim.sim_indexer, "DIES_ALONE", 0.5))


@rare(Fault.COMMIT_ERROR, Fault.WRITE_ERROR, Task.DETACH, Task.TAKEOVER, Task.RESYNC_LOCAL)
def failed_move_leaves_its_segment() -> tuple[Patch, ...]:
    """A move of the head that fails leaves its segment in a lane that is given out again."""

    def back_to(self: Any, timeline: int, lane: int, position: int, *, keep: bool = False) -> None:
        self.start(timeline, lane, position)

    return ((JournalWriter, "back_to", back_to),)


@rare(Fault.COMMIT_ERROR, Fault.WRITE_ERROR, Task.DETACH, Task.TAKEOVER, Task.SPLIT)
def takeover_forgets_the_fallback() -> tuple[Patch, ...]:
    """A takeover's role and what is so of its pair are written one after the other."""

    def set_role(self: Any, name: str, role: Any, pair: Any = None, before: Any = SiteState.set_role) -> None:
        before(self, name, role)

    return ((SiteState, "set_role", set_role),)
