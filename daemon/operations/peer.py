"""Commands about peers: trust one, list them, say how to send to one."""

from __future__ import annotations

from dataclasses import asdict

from daemon.operations.registry import carries_out
from daemon.peers import Peer, PeerOptions, fingerprint, read_token
from daemon.site import Site
from protocol.commands.peer import PeerAdd, PeerAddReply, PeerInfo, PeerList, PeerListReply, PeerSet
from protocol.limits import HEARTBEAT_TIMEOUT_S
from site_primary.shipping.shipper import Shipper
from site_secondary.receiver import Receiver


@carries_out(PeerAdd)
async def add(site: Site, command: PeerAdd) -> PeerAddReply:
    """Trust a peer."""
    peer = read_token(command.token)
    added = site.peers.add(peer)
    site.transport.allow(site.peers.allowed())
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
    """Change how a peer is sent to, now and after a restart."""
    peer = site.peers.get(command.peer)
    options = site.peers.options(peer.name)
    rate = options.rate_bytes_s if command.rate_bytes_s is None else command.rate_bytes_s
    options = PeerOptions(rate_bytes_s=rate, compress=command.compress or options.compress)
    site.peers.set_options(peer.name, options)
    site.traffic.to(peer.name)
    for shipper in site.shippers.values():
        if shipper.peer == peer.name:
            shipper.session.backoff.peer_set()
    site.events.emit("peer.set", object=peer.name, **asdict(options))
    return _info(site, peer)


def peers(site: Site) -> list[PeerInfo]:
    """Every peer that this site knows."""
    return [_info(site, peer) for peer in site.peers.all()]


def _info(site: Site, peer: Peer) -> PeerInfo:
    every: list[tuple[str, Shipper | Receiver]] = [*site.shippers.items(), *site.receivers.items()]
    ends = [(group, end) for group, end in every if end.peer == peer.name]
    heard = [end.heard_at for _, end in ends if end.heard_at is not None]
    age = site.clock.monotonic() - max(heard) if heard else None
    return PeerInfo(
        peer=peer.name,
        endpoint=peer.endpoint or None,
        fingerprint=fingerprint(peer.public_key),
        connected=age is not None and age <= HEARTBEAT_TIMEOUT_S and any(end.connected for _, end in ends),
        heard_s=round(age, 3) if age is not None else None,
        groups=sorted({name for name, _ in ends}),
        **asdict(site.peers.options(peer.name)),
    )
