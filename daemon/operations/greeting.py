"""Whether a peer and this site know each other's keys, asked before anything depends on it."""

from __future__ import annotations

from daemon.peers import Peer
from daemon.site import Site
from engine.group.core import GroupCore
from engine.peering.peer_requests import PeerRequests
from protocol.errors import FarshoreError, NotAllowed, Unreachable


async def check_keys(site: Site, group: GroupCore, peer: Peer) -> None:
    """That a peer that is there takes this site for its peer. NotAllowed. One that is away may come later."""
    asking = PeerRequests(
        group=group.name,
        group_id=site.state.group(group.name).group_id,
        address=peer.address,
        transport=site.transport,
        clock=site.clock,
        rng=site.rng,
    )
    try:
        await asking.report()
    except Unreachable as error:
        if asking.refused:
            raise NotAllowed(
                error.message,
                subject=peer.name,
                next_step="compare `farshore site token` at each site with `farshore peer list` at the other;"
                f" for a site's next key `farshore peer rotate-key {peer.name} TOKEN`, for one that was made"
                f" anew `farshore peer replace {peer.name} TOKEN`",
            ) from error
    except FarshoreError:
        pass  # it answers: what it has to say to the group is the pair's to find out
    finally:
        asking.close()
