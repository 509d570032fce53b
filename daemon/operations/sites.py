"""Commands about the site itself: status, token, peers, events."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import asdict
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from daemon.event_log import Event
from daemon.operations.paging import beyond, page_of, start_of
from daemon.operations.shapes import cut_data, group_data
from daemon.peers import Peer, PeerOptions, fingerprint, make_token, read_token
from daemon.site import Site
from engine.group.compartment import attempt
from engine.group.group import Group
from protocol.command_base import ROWS_MAX
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
from protocol.errors import FarshoreError, WrongState
from protocol.limits import HEARTBEAT_TIMEOUT_S
from site_primary.shipper import Shipper
from site_secondary.receiver import Receiver

Data = dict[str, Any]


class EventKey(NamedTuple):
    """Its number. `left`: how many more were asked for."""

    seq: int
    left: Annotated[int, Meta(ge=0, lt=ROWS_MAX)]


async def status(site: Site, command: SiteStatus) -> Data:
    """Everything about this site now."""
    start = start_of(command, tuple[bool, str])
    rows: list[tuple[tuple[bool, str], Group | FarshoreError]] = [
        *(((False, name), group) for name, group in site.groups.items()),
        *(((True, name), error) for name, error in site.damaged.items()),
    ]
    named = beyond((((damaged, name), (name, each)) for (damaged, name), each in rows), start)
    page = await page_of(site, command, "groups", named, lambda row: _group_row(site, *row))
    return page if start else _about_site(site) | page


def _about_site(site: Site) -> Data:
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
    }


def _group_row(site: Site, name: str, group: Group | FarshoreError) -> Data:
    """A group's row; of one that cannot be opened, or does not say how it is, why."""
    if isinstance(group, FarshoreError):
        return _damaged(name, group.message, group.position)
    found: list[Data] = []
    # What is wrong with one group must not hide the others.
    defect = attempt("status.defect", lambda: found.append(group_data(site, group)))
    return found[0] if defect is None else _damaged(name, group.failed or str(defect), "")


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
    site.traffic.to(peer.name)
    for shipper in site.shippers.values():
        if shipper.peer == peer.name:
            shipper.reconnect.peer_set()
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
    start = start_of(command, EventKey)
    since, limit = start or (command.since, command.limit)
    found, following, missed = site.events.since(since, limit)
    if not found and command.wait_s and start is None:
        await site.events.wait_for_news(command.wait_s)
        found, following, missed = site.events.since(since, limit)
    rows = [(EventKey(event.seq, limit - count), event) for count, event in enumerate(found, 1)]
    page = await page_of(site, command, "events", rows, Event.as_dict)
    return page | {"next": following} | ({} if start else {"missed": missed})
