"""A new site that knows a peer from the start."""

from __future__ import annotations

import pathlib

from daemon.config import SiteConfig
from daemon.data_directory import make_site, read_keys
from daemon.peer_tokens import fingerprint, make_token, read_token
from daemon.peers import Peer, PeerBook
from engine.ports.durable import RealDisk
from protocol.commands.site import SiteInitReply
from protocol.errors import UsageError


def make_introduced(directory: pathlib.Path, config: SiteConfig, token: str) -> SiteInitReply:
    """Make a data directory, with the site of a peer's `token` as its peer; none if that is empty. UsageError
    for a bad name or token, Busy if there is something already: then nothing was made."""
    peer = read_token(token) if token else None
    if peer is not None and peer.name == config.name:
        raise UsageError(
            f"the peer has this site's name, {peer.name}",
            subject=peer.name,
            next_step="choose another --name; to take its place: `farshore peer replace` at its peers",
        )
    identity = make_site(directory, config)
    endpoint = config.advertise or config.replication
    public = read_keys(directory).public
    own = Peer(name=config.name, site_id=identity.site_id, endpoint=endpoint, public_key=public)
    if peer is not None:
        PeerBook(RealDisk(directory, None), own).add(peer)
    return SiteInitReply(
        directory=str(directory),
        site=config.name,
        site_id=identity.site_id,
        token=make_token(own),
        fingerprint=fingerprint(public),
        peer=peer.name if peer else None,
        peer_fingerprint=fingerprint(peer.public_key) if peer else None,
    )
