"""Which way a restore can go, by what each site still holds of the cut.

    here   at the peer     way
    yes    yes, or away    one `Revert`: both sites see it, or the peer takes a base when it returns
    yes    no longer       the blocks that differ are written from this site's history
    no     yes             the blocks that differ are fetched from the peer, and written
    no     no, or away     refused: trimmed

Before anything is changed the cut is held at the peer, so that it cannot be truncated there before the revert
comes. However many reverts there were, the next is one, too (engine.index.deep_view), unless the peer is of a
version that would refuse to read so many; or, if it is away, may be. Then the blocks are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from engine.group.group import Group
from engine.history.volumes import Volume
from engine.history.watermarks import PeerMarks
from engine.peering.pair_states import PairState
from engine.peering.peer_requests import PeerRequests
from protocol.cut_text import CutBackup, CutLabel, CutPosition, CutTime, NamedCut
from protocol.errors import Diverged, FarshoreError, NotFound, Trimmed, WrongState
from protocol.limits import VISIBILITY_INTERVALS_MAX
from protocol.peer_requests import MANY_REVERTS
from protocol.positions import Cut

# Every version reads 64 intervals; bases and moves of the writing add a few.
INTERVALS_READ_BY_ALL = 64 - 16
# So many at most this version makes, for the same reason.
REVERT_INTERVALS_MAX = VISIBILITY_INTERVALS_MAX - 64
AskPeer = Callable[[], PeerRequests]  # WrongState: there is none


class Way(Enum):
    """How a volume comes back; see the module's docstring."""

    REVERT = "revert"
    WRITE = "write"
    FETCH = "fetch"


class There(Enum):
    """What the peer says of a cut. AWAY: nothing, or not soon."""

    HELD = "held"
    GONE = "gone"
    AWAY = "away"


class Following(Protocol):
    """The shipper of a group, as far as the choice needs it."""

    @property
    def state(self) -> PairState:
        """The pair's."""

    @property
    def connected(self) -> bool:
        """Whether the peer is in a session."""

    @property
    def sends_base(self) -> bool:
        """Whether the peer gets changed blocks in place of the journal now."""

    @property
    def marks(self) -> PeerMarks:
        """What the peer has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A way. `there`: whether the peer holds the cut under `lease` now; `common`, for FETCH, a cut that both
    sites can read."""

    way: Way
    cut: Cut
    lease: str
    there: bool
    common: Cut | None = None

    async def hold_on(self, ask: AskPeer, for_s: float) -> None:
        """The peer holds for so long from now on what it holds for this way. What cannot be said to it now is
        held for as long as was said before."""
        if self.there:
            with suppress(FarshoreError):
                await ask().hold(self.lease, self.cut, for_s)
                if self.common is not None:
                    await ask().hold(_common_lease(self.lease), self.common, for_s)

    async def let_go(self, ask: AskPeer) -> None:
        """The peer need not hold the cut any longer. What cannot be said to it now ends there by itself."""
        if self.there:
            with suppress(FarshoreError):
                await ask().release(self.lease)
                if self.common is not None:
                    await ask().release(_common_lease(self.lease))


async def trimmed_cut(group: Group, named: NamedCut, ask: AskPeer) -> Cut | None:
    """What a named cut stands for that this site cannot read any more, as far as anybody knows."""
    match named:
        case CutLabel(label=name) | CutBackup(backup_id=name):
            return group.copies.find(group.spans(group.writer.written), name, group.name).cut
        case CutPosition(timeline=timeline, position=position):
            return Cut(timeline, position)
        case CutTime(utc_ns=utc_ns):
            with suppress(FarshoreError):
                return await ask().cut_at(utc_ns)
    return None


async def choose_way(
    group: Group,
    volumes: tuple[Volume, ...],
    cut: Cut,
    lease: str,
    for_s: float,
    following: Following | None,
    ask: AskPeer | None,
) -> Chosen:
    """The way for these volumes to `cut`, which the peer then holds under the name `lease` for so long if it
    can. `ask` is None if the group has no peer. Trimmed if no site that answers can read the cut; Diverged if
    the peer's history is another one."""
    if group.kept.readable(cut):
        there = There.AWAY
        if ask is not None and following is not None and _has_it_soon(group, following, cut):
            there = await _hold(ask(), cut, lease, for_s)
        deep = await _too_deep(group, volumes, cut, ask)
        way = Way.WRITE if deep or there is There.GONE else Way.REVERT
        return Chosen(way=way, cut=cut, lease=lease, there=there is There.HELD)
    if ask is not None and await _hold(ask(), cut, lease, for_s) is There.HELD:
        common = await _common_cut(group, ask(), lease, for_s)
        return Chosen(way=Way.FETCH, cut=cut, lease=lease, there=True, common=common)
    group.kept.require(cut)
    raise NotFound(f"{cut} cannot be read", subject=group.name, position=str(cut))


def depth_of(group: Group, volumes: Iterable[Volume], cut: Cut) -> int:
    """Of how many intervals what one of the volumes shows at a cut is made, at most."""
    return max((len(group.kept.view_of(volume.id, cut).intervals) for volume in volumes), default=0)


async def _too_deep(group: Group, volumes: Iterable[Volume], cut: Cut, ask: AskPeer | None) -> bool:
    """Whether a revert to `cut` would be one too many: for this version, or for the peer's."""
    depth = depth_of(group, volumes, cut)
    if depth < INTERVALS_READ_BY_ALL or ask is None:
        return depth >= REVERT_INTERVALS_MAX
    try:
        read = await ask().reads(MANY_REVERTS)
    except FarshoreError:
        read = False
    return not read or depth >= REVERT_INTERVALS_MAX


def _has_it_soon(group: Group, following: Following, cut: Cut) -> bool:
    """Whether the peer is worth asking: one that is away is not waited for, and one that has not come to the
    cut yet comes to it and, right after it, to the revert."""
    if not following.connected or following.sends_base:
        return False
    if following.state not in (PairState.PAIRED, PairState.COPYING):
        return False
    return not group.holds_cut(cut) or cut.position <= following.marks.remote_written


async def _hold(peer: PeerRequests, cut: Cut, lease: str, for_s: float) -> There:
    try:
        await peer.hold(lease, cut, for_s)
    except (Trimmed, NotFound, WrongState):
        return There.GONE
    except FarshoreError:
        return There.AWAY
    return There.HELD


async def _common_cut(group: Group, peer: PeerRequests, lease: str, for_s: float) -> Cut:
    """The end of what the peer has of this site's history, held there. It can be read here, too: nothing that
    the peer may need is truncated."""
    report = await peer.report()
    common = Cut(report.timeline, report.written)
    if not group.holds_cut(common):
        raise Diverged(
            f"{peer.peer} holds another history of {group.name}: what differs cannot be told",
            subject=group.name,
            position=str(common),
            next_step=f"`farshore pair resync {group.name}`, then restore again",
        )
    group.kept.require(common)
    await peer.hold(_common_lease(lease), common, for_s)
    return common


def _common_lease(lease: str) -> str:
    return f"{lease}, from"
