"""Commands about peers: trust one, list them, say how and where to send to one; put another in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from msgspec import structs

from daemon.operations.registry import carries_out
from daemon.operations.schedule_times import checked_zone
from daemon.operations.shapes import minute_text, time_or_none
from daemon.peer_tokens import fingerprint, read_token
from daemon.peers import Peer, PeerOptions
from daemon.site import Site
from engine.peering.pair_rows import rename_peer
from protocol.commands.peer import (
    DAY_NAMES,
    PeerAdd,
    PeerAddReply,
    PeerInfo,
    PeerList,
    PeerListReply,
    PeerRemove,
    PeerRemoveReply,
    PeerRename,
    PeerReplace,
    PeerRotateKey,
    PeerSet,
    RateWindow,
    RateWindowInfo,
)
from protocol.endpoints import check_dialled_endpoint
from protocol.errors import Busy, NotAllowed
from protocol.limits import HEARTBEAT_TIMEOUT_S
from site_primary.shipping.rate_windows import rate_now


@carries_out(PeerAdd)
async def add(site: Site, command: PeerAdd) -> PeerAddReply:
    """Trust a peer."""
    peer = read_token(command.token)
    before = site.peers.address_of(peer.name)
    added = site.peers.add(peer)
    site.allow_peers()
    if before != site.peers.address_of(peer.name):
        site.peer_changed(peer.name, peer.name)
    if added:
        site.events.emit("peer.added", object=peer.name, fingerprint=fingerprint(peer.public_key))
    return PeerAddReply(
        peer=peer.name,
        endpoint=peer.endpoint or None,
        fingerprint=fingerprint(peer.public_key),
        added=added,
    )


@carries_out(PeerList)
async def list_peers(site: Site, _: PeerList) -> PeerListReply:
    """Every peer."""
    return PeerListReply(peers=peers(site))


@carries_out(PeerSet)
async def set_peer(site: Site, command: PeerSet) -> PeerInfo:
    """Change how and where a peer is sent to, now and after a restart."""
    if command.window is not None:
        await checked_zone(command.window.zone)
    peer = site.peers.get(command.peer)
    if command.endpoint is not None and command.endpoint != peer.endpoint:
        peer = site.peers.set_endpoint(peer.name, check_dialled_endpoint(command.endpoint))
        site.peer_changed(peer.name, peer.name)
    options = site.peers.options(peer.name)
    options = PeerOptions(
        rate_bytes_s=options.rate_bytes_s if command.rate_bytes_s is None else command.rate_bytes_s,
        compress=command.compress or options.compress,
        windows=_windows(options.windows, command),
    )
    site.peers.set_options(peer.name, options)
    site.traffic.to(peer.name)
    for shipper in site.shippers.values():
        if shipper.peer == peer.name:
            shipper.session.backoff.peer_set()
    site.events.emit(
        "peer.set",
        object=peer.name,
        endpoint=peer.endpoint,
        rate_bytes_s=options.rate_bytes_s,
        compress=options.compress,
        windows=len(options.windows),
    )
    return _info(site, peer)


def _windows(before: tuple[RateWindow, ...], command: PeerSet) -> tuple[RateWindow, ...]:
    kept = () if command.drop_windows else before
    new = command.window
    if new is None:
        return kept
    others = (each for each in kept if structs.replace(each, rate_bytes_s=new.rate_bytes_s) != new)
    return (*others, new)


@carries_out(PeerReplace)
async def replace(site: Site, command: PeerReplace) -> PeerInfo:
    """Another site takes a peer's place, in all its pairs."""
    old = site.peers.get(command.peer)
    if _info(site, old).connected:
        raise Busy(
            f"{old.name} is connected: a site is replaced once it is gone",
            subject=old.name,
            next_step=f"stop the daemon of {old.name} for good, wait 10 s, and try again",
        )
    peer = site.peers.replace(old.name, read_token(command.token))
    site.peer_changed(peer.name, peer.name, anew=True)
    site.events.emit(
        "peer.replaced",
        object=peer.name,
        endpoint=peer.endpoint,
        fingerprint=fingerprint(peer.public_key),
        before=fingerprint(old.public_key),
    )
    return _info(site, peer)


@carries_out(PeerRotateKey)
async def rotate_key(site: Site, command: PeerRotateKey) -> PeerInfo:
    """Take a peer by its next key, too."""
    token = read_token(command.token)
    if site.peers.expect_key(command.peer, token):
        site.peer_changed(command.peer, command.peer)
        site.events.emit("peer.key_expected", object=command.peer, fingerprint=fingerprint(token.public_key))
    return _info(site, site.peers.get(command.peer))


@carries_out(PeerRename)
async def rename(site: Site, command: PeerRename) -> PeerInfo:
    """Call a peer by another name."""
    peer = site.peers.rename(command.peer, command.new, partial(rename_peer, site.state))
    site.peer_changed(command.peer, peer.name)
    site.events.emit("peer.renamed", object=peer.name, before=command.peer)
    return _info(site, peer)


@carries_out(PeerRemove)
async def remove(site: Site, command: PeerRemove) -> PeerRemoveReply:
    """Trust a peer no longer."""
    peer = site.peers.get(command.peer)
    names = [row.name for row in site.state.groups() if site.peer_of(row.name) == peer.name]
    if names:
        raise NotAllowed(
            f"{peer.name} is the peer of {len(names)} pairs here, the first is {names[0]}",
            subject=peer.name,
            next_step=f"`farshore pair delete {names[0]} --confirm {names[0]}`; `farshore peer replace "
            f"{peer.name} TOKEN` if another site takes its place",
        )
    site.peers.remove(peer.name)
    site.allow_peers()
    site.events.emit("peer.removed", object=peer.name, fingerprint=fingerprint(peer.public_key))
    return PeerRemoveReply(peer=peer.name, fingerprint=fingerprint(peer.public_key))


def peers(site: Site) -> list[PeerInfo]:
    """Every peer that this site knows."""
    return [_info(site, peer) for peer in site.peers.all()]


def _info(site: Site, peer: Peer) -> PeerInfo:
    ends = [(group, end) for group, end in site.pairs.ends() if end.peer == peer.name]
    heard = [end.heard_at for _, end in ends if end.heard_at is not None]
    age = site.clock.monotonic() - max(heard) if heard else None
    skew = site.pairs.clocks.of(peer.name).skew(site.clock)
    options, now_ns = site.peers.options(peer.name), site.clock.utc_ns()
    rate_bytes_s, until_ns = rate_now(options.rate_bytes_s, options.windows, now_ns)
    coming = site.peers.coming_keys().get(peer.name)
    return PeerInfo(
        peer=peer.name,
        endpoint=peer.endpoint or None,
        fingerprint=fingerprint(peer.public_key),
        connected=age is not None and age <= HEARTBEAT_TIMEOUT_S and any(end.connected for _, end in ends),
        heard_s=round(age, 3) if age is not None else None,
        groups=sorted({name for name, _ in ends}),
        clock_skew_s=round(skew.ahead_s, 3) if skew else None,
        clock_skew_within_s=round(skew.within_s, 3) if skew else None,
        next_fingerprint=fingerprint(coming) if coming else None,
        **(asdict(options) | {"windows": [_window_info(each) for each in options.windows]}),
        rate_now_bytes_s=rate_bytes_s,
        rate_until=time_or_none(until_ns),
    )


def _window_info(window: RateWindow) -> RateWindowInfo:
    between = f"{minute_text(window.from_minute)}-{minute_text(window.until_minute)}"
    return RateWindowInfo(
        between=between, zone=window.zone, rate_bytes_s=window.rate_bytes_s, days=days_text(window.days)
    )


def days_text(days: Sequence[int]) -> str:
    """`mon-fri`, `sat,sun`, `mon,wed-fri`; empty for none."""
    runs: list[list[int]] = []
    for day in days:
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    names = ([DAY_NAMES[day] for day in run] for run in runs)
    return ",".join(f"{each[0]}-{each[-1]}" if len(each) > 2 else ",".join(each) for each in names)
