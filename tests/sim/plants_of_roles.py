"""Bugs planted in moving roles: authority, hand-overs, what is left and what is fetched."""

from __future__ import annotations

from typing import Any

import engine.group.group
import engine.group.head_moves
import engine.peering.role_moves
import site_primary.shipping.comparison
import site_primary.shipping.shipper
from daemon.pairs import SitePairs
from engine.group.group import Group
from engine.group.head_moves import begin_timeline, follow_elsewhere, hand_over
from engine.history.timelines import TimelineTable
from engine.journal.writer import JournalWriter
from engine.peering.role_exports import RoleExports
from engine.peering.role_moves import RoleMoves
from engine.retention.kept import KeptHistory
from site_primary.nbd.exports import Export
from site_primary.shipping.comparison import where_to_start
from tests.sim.patching import patched
from tests.sim.plant_registry import plant, rare
from tests.sim.shape import Habit, Patch, Task

# -- authority


@plant
def role_not_durable_before_the_timeline() -> tuple[Patch, ...]:
    """A takeover begins to write, and remembers its role a little later."""

    def take_over(self: Any, group: Any, state: Any, before: Any = RoleMoves.take_over) -> None:
        site_state = self._state
        late: list[Any] = []
        self._state = _Late(site_state, late)
        try:
            before(self, group, state)
        finally:
            self._state = site_state
        for change in late:
            group.clock.call_later(0.05, change)

    return ((RoleMoves, "take_over", take_over),)


class _Late:
    """The site's state, with changes of role kept for later."""

    def __init__(self, state: Any, late: list[Any]) -> None:
        self._state = state
        self._late = late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def set_role(self, name: str, role: Any, pair: Any = None) -> None:
        """Keep it."""
        self._late.append(lambda: self._state.set_role(name, role, pair))


@plant
def superseded_site_goes_on() -> tuple[Patch, ...]:
    """A site that hears of a newer authority serves its hosts as before."""
    return ((SitePairs, "superseded", lambda self, group, by, generation=0: None),)


@plant
def hosts_stay_when_superseded() -> tuple[Patch, ...]:
    """A superseded site changes its role and leaves its exports open."""

    def superseded(
        self: Any, group: Any, by: str, generation: int = 0, before: Any = SitePairs.superseded
    ) -> None:
        kept = (
            (RoleExports, "close", lambda self, group, peer, by: None),
            (Export, "shut", lambda self: None),
        )
        with patched(kept):
            before(self, group, by, generation)

    return ((SitePairs, "superseded", superseded),)


@plant
def takeover_keeps_the_generation() -> tuple[Patch, ...]:
    """A takeover does not outrank the site that it takes over from."""

    def begin(group: Any, *, authority: bool = False) -> None:
        begin_timeline(group)

    return ((engine.peering.role_moves, "begin_timeline", begin),)


# -- hand-over


@plant
def hand_over_before_it_is_durable() -> tuple[Patch, ...]:
    """A hand-over is said and shipped, and synced with what follows."""

    def over(group: Group, to: str) -> None:
        with patched(((JournalWriter, "sync_now", lambda self: None),)):
            hand_over(group, to)

    return ((engine.peering.role_moves, "hand_over", over),)


@plant
def hosts_stay_after_a_hand_over() -> tuple[Patch, ...]:
    """What was handed over goes on being written."""

    def over(group: Group, to: str) -> None:
        hand_over(group, to)
        group.promises.handed.clear()

    def close(self: Any, group: Any, peer: str, **by: Any) -> None:
        pass

    return ((engine.peering.role_moves, "hand_over", over), (RoleExports, "close", close))


# -- what is left


@plant
def anyones_tail_is_left() -> tuple[Patch, ...]:
    """What another site wrote is left for whatever comes next."""

    def follow(group: Any, frame: Any, *decoded: Any, leave: bool) -> None:
        follow_elsewhere(group, frame, *decoded, leave=True)

    def start_for(*args: Any, choice: Any, before: Any = where_to_start, **named: Any) -> Any:
        return before(*args, choice=site_primary.shipping.comparison.Choice.LOCAL, **named)

    return (
        (engine.group.group, "follow_elsewhere", follow),
        (site_primary.shipping.shipper, "where_to_start", start_for),
    )


@plant
def lane_shared_with_an_unsealed_parent() -> tuple[Patch, ...]:
    """A timeline takes its parent's lane although the parent may go on elsewhere."""

    def lane(
        self: Any, parent: int, fork: int, *, certain: bool, before: Any = TimelineTable.lane_for_child
    ) -> int:
        return int(before(self, parent, fork, certain=True))

    return ((TimelineTable, "lane_for_child", lane),)


@plant
def sealed_without_knowing() -> tuple[Patch, ...]:
    """A timeline's first frame says that its parent ends there, whatever the peer may hold."""

    def begin(group: Any, *, authority: bool = False) -> None:
        group.head.sealed = True
        begin_timeline(group, authority=authority)

    return (
        (engine.group.head_moves, "begin_timeline", begin),
        (engine.peering.role_moves, "begin_timeline", begin),
    )


@rare(Habit.SELDOM_INDEXED, Task.DETACH, Task.DROP)
def restored_to_a_tail_that_never_came() -> tuple[Patch, ...]:
    """A site follows a restore to more of a timeline than it has."""
    return ((KeptHistory, "_came", lambda self, cut: cut.timeline in self._group.timelines),)
