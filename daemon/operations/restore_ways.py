"""Which way a restore can go, by what each site still holds of the cut.

    here   at the peer     way
    yes    yes, or away    one `Revert`: both sites see it, or the peer takes a base when it returns
    yes    no longer       the blocks that differ are written from this site's history
    no     yes             the blocks that differ are fetched from the peer, and written
    no     no, or away     refused: trimmed

Before anything is changed the cut is held at the peer, so that it cannot be folded there before the revert
comes. Also after many reverts the blocks are written: each one makes every read look at one place more.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from daemon.operations.shapes import resolve
from daemon.site import Site
from engine.group.group import Group
from engine.history.volumes import Volume
from engine.peering.pair_states import PairState
from engine.peering.peer_questions import PeerQuestions
from protocol.cut_text import CutBackup, CutLabel, CutPosition, CutTime, NamedCut
from protocol.errors import Diverged, FarshoreError, NotFound, Trimmed, WrongState
from protocol.positions import Cut
from site_primary.shipping.session_phases import Phase
from site_secondary.restore_volume import too_deep
from site_secondary.rewrite_volume import OwnPast, Past, PeerPast

PROBE_S = 60.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A way. `there`: whether the peer holds the cut under `lease` now; `common`, for FETCH, a cut that both
    sites can read."""

    way: Way
    cut: Cut
    lease: str
    there: bool
    common: Cut | None = None

    def past(self, site: Site, group: Group, volume: Volume, end: Cut, patience_s: float = 0.0) -> Past:
        """Where the blocks come from; `end` is what the volume is now. See `PeerPast` for `patience_s`."""
        if self.common is None:
            return OwnPast(group, volume, self.cut, end)
        peer = site.ask_peer(group.name)
        return PeerPast(group, volume, self.cut, end, peer, self.common, patience_s)


async def find_cut(site: Site, group: Group, named: NamedCut) -> Cut:
    """What a named cut stands for, although perhaps only the peer can read it. Otherwise as `resolve`."""
    try:
        return resolve(site, group, named)
    except Trimmed:
        match named:
            case CutLabel(label=name) | CutBackup(backup_id=name):
                return group.copies.find(group.spans(group.writer.written), name, group.name).cut
            case CutPosition(timeline=timeline, position=position):
                return Cut(timeline, position)
            case CutTime(utc_ns=utc_ns):
                with suppress(FarshoreError):
                    return await site.ask_peer(group.name).cut_at(utc_ns)
        raise


async def choose_way(
    site: Site, group: Group, volumes: tuple[Volume, ...], cut: Cut, lease: str, for_s: float
) -> Chosen:
    """The way for these volumes to `cut`, which the peer then holds under the name `lease` for so long if it
    can. Trimmed if no site that answers can read it; Diverged if the peer's history is another one."""
    if group.kept.readable(cut):
        there = await _ask_attached(site, group, cut, lease, for_s)
        deep = too_deep(group, volumes, cut)
        way = Way.WRITE if deep or there is There.GONE else Way.REVERT
        return Chosen(way=way, cut=cut, lease=lease, there=there is There.HELD)
    if site.peer_of(group.name):
        peer = site.ask_peer(group.name)
        if await _ask(peer, cut, lease, for_s) is There.HELD:
            common = await _common_cut(group, peer, lease, for_s)
            return Chosen(way=Way.FETCH, cut=cut, lease=lease, there=True, common=common)
    group.kept.require(cut)
    raise NotFound(f"{cut} cannot be read", subject=group.name, position=str(cut))


async def hold_on(site: Site, group: Group, chosen: Chosen, for_s: float) -> None:
    """The peer holds for so long from now on what it holds for a way. What cannot be said to it now is held
    for as long as was said before."""
    if chosen.there:
        with suppress(FarshoreError):
            peer = site.ask_peer(group.name)
            await peer.hold(chosen.lease, chosen.cut, for_s)
            if chosen.common is not None:
                await peer.hold(_common_lease(chosen.lease), chosen.common, for_s)


async def let_go(site: Site, group: Group, chosen: Chosen) -> None:
    """The peer need not hold the cut any longer. What cannot be said to it now ends there by itself."""
    if chosen.there:
        with suppress(FarshoreError):
            await site.ask_peer(group.name).release(chosen.lease)
            if chosen.common is not None:
                await site.ask_peer(group.name).release(_common_lease(chosen.lease))


async def _ask_attached(site: Site, group: Group, cut: Cut, lease: str, for_s: float) -> There:
    """Of a peer that follows right now: one that is away is not waited for."""
    shipper = site.shippers.get(group.name)
    if shipper is None or not shipper.connected or shipper.session.phase is Phase.BASE:
        return There.AWAY
    if shipper.state not in (PairState.PAIRED, PairState.COPYING):
        return There.AWAY
    if group.holds_cut(cut) and cut.position > shipper.marks.remote_written:
        return There.AWAY  # it comes to the cut and, right after it, to the revert
    return await _ask(site.ask_peer(group.name), cut, lease, for_s)


async def _ask(peer: PeerQuestions, cut: Cut, lease: str, for_s: float) -> There:
    try:
        await peer.hold(lease, cut, for_s)
    except (Trimmed, NotFound, WrongState):
        return There.GONE
    except FarshoreError:
        return There.AWAY
    return There.HELD


async def _common_cut(group: Group, peer: PeerQuestions, lease: str, for_s: float) -> Cut:
    """The end of what the peer has of this site's history, held there. It can be read here, too: nothing that
    the peer may need is folded."""
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
