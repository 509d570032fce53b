"""Asking a peer what it is to a group."""

from __future__ import annotations

import asyncio

from daemon.site import Site
from engine.group import Group
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.messages import Ask, Report, decode_message

ASK_TIMEOUT_S = 3.0


async def ask_peer(site: Site, peer: str, group: Group) -> Report | None:
    """The peer's answer; None if there is none in time, or no way to ask."""
    try:
        address = site.peers.get(peer).address
    except FarshoreError:
        return None
    if not address.endpoint:
        return None
    answer: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
    session = site.rng.getrandbits(62) | 1

    def heard(header: bytes, _: bytes | None) -> None:
        try:
            message = decode_message(header)
        except RemoteProtocolError:
            return
        if isinstance(message, Report) and message.session == session and not answer.done():
            answer.set_result(message)

    link = site.transport.dial(address, heard)
    try:
        group_id = site.state.group(group.name).group_id
        link.send(Ask(session=session, group=group.name, group_id=group_id).encode())
        return await asyncio.wait_for(answer, ASK_TIMEOUT_S)
    except TimeoutError:
        return None
    finally:
        link.close()
