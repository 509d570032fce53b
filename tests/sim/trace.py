"""A short story of a run for whoever reads a violation: one line for each change of role, timeline, session,
gate or hold, each fault and task, and for what hosts were told, with site and virtual time.

The notes of `SimWorld` are complete and make the trace's hash; this is what a person reads first.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from protocol.positions import Cut
from tests.sim.sim_site import GROUP, SimSite
from tests.sim.world import SimWorld

KEPT_LINES = 2000
# Events of a site that are changes of one of those; all else is left to the notes.
TOLD = (
    "base.installed", "group.", "journal.failed", "journal.torn_tail", "pair.", "timeline.",
)  # fmt: skip
# Said already by the line of the state that it leads to.
NOT_TOLD = ("group.recovered",)


class Standing(NamedTuple):
    """What hosts and the peer see of a site: role and generation, end, gate, hold."""

    role: str
    generation: int
    timeline: int
    gate: str
    hold: str
    session: int


class Trace:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self._lines: deque[tuple[int, str, str]] = deque(maxlen=KEPT_LINES)
        self._standing: dict[str, Standing] = {}
        self._told: tuple[str, int, int, str] | None = None  # site, when, how many, up to where

    def line(self, site: str, text: str) -> None:
        """Something happened there."""
        self._end_told()
        self._lines.append((self._world.now_ns, site, text))

    def event(self, site: str, event: str, fields: dict[str, object]) -> None:
        """A site reports an event."""
        if event.startswith(TOLD) and event not in NOT_TOLD:
            said = " ".join(f"{key}={value}" for key, value in sorted(fields.items()) if key != "group")
            self.line(site, f"{event} {said}")

    def acknowledged(self, site: str, end: Cut) -> None:
        """A host was told that a write is there. Many in a row are one line."""
        if self._told is not None and self._told[0] == site:
            self._told = (site, self._told[1], self._told[2] + 1, str(end))
            return
        self._end_told()
        self._told = (site, self._world.now_ns, 1, str(end))

    def _end_told(self) -> None:
        if self._told is not None:
            site, now_ns, count, end = self._told
            self._lines.append((now_ns, site, f"acknowledges {count} writes, the journal ends at {end}"))
            self._told = None

    def look(self, site: SimSite) -> None:
        """A line for whatever is another than at the last look."""
        process, group = site.process, site.group
        if process is None or group is None:
            self._standing.pop(site.name, None)
            return
        gate = process.exports.gate(group)
        shipper, receiver = process.shippers.get(GROUP), process.receivers.get(GROUP)
        now = Standing(
            process.role.value,
            process.generation,
            group.head.timeline,
            f"{gate.mode.value} {gate.phase.value}",
            group.holds.reason,
            shipper.session.id if shipper else receiver._session if receiver else 0,
        )
        before = self._standing.get(site.name)
        if now == before:
            return
        self._standing[site.name] = now
        if before is None:
            self.line(site.name, f"{now.role} of {now.generation} at {group.end}, {now.gate}; {now.hold}")
            return
        for name in ("role", "generation", "gate", "hold"):
            old, new = getattr(before, name), getattr(now, name)
            if old != new:
                self.line(site.name, f"{name}: {old or 'none'} -> {new or 'none'}")
        if before.timeline != now.timeline:
            self.line(site.name, f"timeline: {before.timeline:016x} -> {now.timeline:016x} at {group.end}")
        if before.session != now.session:
            self.line(site.name, f"session: {before.session:x} -> {now.session:x}")

    def lines(self, last_s: float = 0.0) -> tuple[str, ...]:
        """The story, or the end of it."""
        self._end_told()
        since_ns = self._world.now_ns - round(last_s * 1e9) if last_s else 0
        return tuple(
            f"{now_ns / 1e9:10.6f} {site or '-':2} {text}"
            for now_ns, site, text in self._lines
            if now_ns >= since_ns
        )
