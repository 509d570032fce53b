"""Commands about the site itself: status, token, peers, events."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import asdict
from typing import Any

from daemon.operations.shapes import cut_data, group_data
from daemon.peers import Peer, PeerOptions, fingerprint, make_token, read_token
from daemon.site import Site
from engine.compartment import attempt
from engine.group import Group
from protocol.commands import (
    Events,
    PeerAdd,
    PeerList,
    PeerSet,
    SiteAccept,
    SiteStatus,
    SiteToken,
    check_confirm,
)
from protocol.cut_text import time_text
from protocol.errors import WrongState
from protocol.limits import HEARTBEAT_TIMEOUT_S
from site_primary.shipper import Shipper
from site_secondary.receiver import Receiver

Data = dict[str, Any]


async def status(site: Site, _: SiteStatus) -> Data:
    """Everything about this site now."""
    groups: list[Data] = []
    for name, group in sorted(site.groups.items()):
        # What is wrong with one group must not hide the others.
        defect = attempt("status.defect", _add_group, site, group, groups)
        if defect is not None:
            groups.append(_damaged(name, group.failed or str(defect), ""))
    groups += [_damaged(name, error.message, error.position) for name, error in sorted(site.damaged.items())]
    return {
        "site": site.config.name,
        "site_id": site.identity.site_id,
        "version": importlib.metadata.version("farshore"),
        "time": time_text(site.clock.utc_ns()),
        "pid": os.getpid(),
        "control": site.control_endpoint,
        "replication": site.config.replication or None,
        "nbd": list(site.nbd_addresses),
        "peers": [_peer_data(site, peer) for peer in site.peers.all()],
        "groups": groups,
    }


def _add_group(site: Site, group: Group, groups: list[Data]) -> None:
    groups.append(group_data(site, group))


def _damaged(name: str, reason: str, position: str) -> Data:
    """The row of a group of which nothing more can be said."""
    return {"group": name, "state": "damaged", "code": "PSUE", "reason": reason, "position": position}


async def token(site: Site, _: SiteToken) -> Data:
    """What a peer needs to trust this site."""
    endpoint = site.own.endpoint
    return {
        "site": site.config.name,
        "token": make_token(site.own),
        "site_id": site.identity.site_id,
        "replication": endpoint or None,
        "public_key": site.keys.public,
        "fingerprint": fingerprint(site.keys.public),
    }


async def accept(site: Site, command: SiteAccept) -> Data:
    """Go on with what is here of a group that was more, or without one that was here."""
    name = command.group
    check_confirm(command.confirm, name, dry_run=False)
    head = None
    if site.has_group(name):
        group = site.group(name)
        lost = group.turned_back.lost
        if lost is None:
            raise WrongState(
                f"group {name} is not known to have been more than it is here",
                subject=name,
                position=str(group.end),
                next_step="`farshore status`",
            )
        group.turned_back.accept()
        head = cut_data(group.end)
    else:
        lost = site.witness.give_up(name)
        site.events.emit("group.accepted", group=name, position=str(lost))
    site.witness.write()
    site.notify()
    return {"group": name, "lost": cut_data(lost), "head": head}


async def peer_add(site: Site, command: PeerAdd) -> Data:
    """Trust a peer."""
    peer = read_token(command.token)
    added = site.peers.add(peer)
    site.transport.allow(site.peers.allowed())
    if added:
        site.events.emit("peer.added", object=peer.name, fingerprint=fingerprint(peer.public_key))
    return {
        "peer": peer.name,
        "endpoint": peer.endpoint or None,
        "fingerprint": fingerprint(peer.public_key),
        "added": added,
    }


async def peer_list(site: Site, _: PeerList) -> Data:
    """Every peer."""
    return {"peers": [_peer_data(site, peer) for peer in site.peers.all()]}


async def peer_set(site: Site, command: PeerSet) -> Data:
    """Change how a peer is sent to, now and after a restart."""
    peer = site.peers.get(command.peer)
    options = site.peers.options(peer.name)
    rate = options.rate_bytes_s if command.rate_bytes_s is None else command.rate_bytes_s
    options = PeerOptions(rate_bytes_s=rate, compress=command.compress or options.compress)
    site.peers.set_options(peer.name, options)
    site.traffic_to(peer.name)
    for shipper in site.shippers.values():
        if shipper.peer == peer.name:
            shipper.peer_set()
    site.events.emit("peer.set", object=peer.name, **asdict(options))
    return _peer_data(site, peer)


def _peer_data(site: Site, peer: Peer) -> Data:
    every: list[tuple[str, Shipper | Receiver]] = [*site.shippers.items(), *site.receivers.items()]
    ends = [(group, end) for group, end in every if end.peer == peer.name]
    heard = [end.heard_at for _, end in ends if end.heard_at is not None]
    age = site.clock.monotonic() - max(heard) if heard else None
    return {
        "peer": peer.name,
        "endpoint": peer.endpoint or None,
        "fingerprint": fingerprint(peer.public_key),
        "connected": age is not None and age <= HEARTBEAT_TIMEOUT_S and any(end.connected for _, end in ends),
        "heard_s": round(age, 3) if age is not None else None,
        "groups": sorted({name for name, _ in ends}),
        **asdict(site.peers.options(peer.name)),
    }


async def events(site: Site, command: Events) -> Data:
    """The newest events, or those after a number; waits for the first if asked."""
    found, following, missed = site.events.since(command.since, command.limit)
    if not found and command.wait_s:
        await site.events.wait_for_news(command.wait_s)
        found, following, missed = site.events.since(command.since, command.limit)
    return {"events": [event.as_dict() for event in found], "next": following, "missed": missed}
