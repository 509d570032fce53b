"""Connections to peers, shared by sessions: a few to each peer, however many groups are paired with it.

Each of the first sessions with a peer has a connection of its own. Those after them share, where fewest are:
a connection's bytes come in order, and what a busy group sends is in the way of the others' there.

What is said to a session says so in its header, so that a peer need not know of this: for it they are
sessions whose messages come from one caller. A connection is lost for all of its sessions.
"""

from __future__ import annotations

from functools import partial

from engine.group.compartment import attempt
from engine.ports.disk import Buffer
from engine.ports.transport import Link, OnLinkMessage, PeerAddress, Transport
from protocol.errors import RemoteProtocolError
from protocol.limits import PEER_LINKS_MAX
from protocol.messages import session_of


class _Shared:
    """One connection: `sessions` by their ids, and what each but the first said, until it is made."""

    def __init__(self, transport: Transport, address: PeerAddress) -> None:
        self.sessions: dict[int, OnLinkMessage] = {}
        self._one = True  # never had a second session
        self._held: dict[int, list[tuple[bytes, Buffer | None]]] = {}
        self.link = transport.dial(address, self._on_message)

    def join(self, session: int, on_message: OnLinkMessage) -> None:
        """It is that session's too from now on."""
        self._one = not self.sessions
        self.sessions[session] = on_message

    def send(self, session: int, header: bytes, payload: Buffer | None) -> None:
        """The first may send before it is made, as `Link` says. Others wait: theirs would still come to the
        peer once they are gone, when nobody awaits it."""
        if self.link.connected:
            self._send_held()
        elif session != next(iter(self.sessions)):
            self._held.setdefault(session, []).append((header, payload))
            return
        self.link.send(header, payload)

    def _send_held(self) -> None:
        for session in list(self._held):
            self._send_held_of(session)

    def _send_held_of(self, session: int) -> None:
        for header, payload in self._held.pop(session, ()):
            self.link.send(header, payload)

    def leave(self, session: int) -> None:
        """What it has not said is not said any more."""
        self.sessions.pop(session, None)
        self._held.pop(session, None)
        if not self.sessions:
            self.link.close()
        elif not self.link.connected:
            self._send_held_of(next(iter(self.sessions)))  # which is the first now

    def _on_message(self, header: bytes, payload: Buffer | None) -> None:
        self._send_held()
        if self._one:
            on_message = next(iter(self.sessions.values()), None)
            if on_message is not None:
                on_message(header, payload)
            return
        try:
            session = session_of(header)
        except RemoteProtocolError:
            for session in list(self.sessions):  # whoever it was for, each says that it was no message
                self._give(session, header, payload)
        else:
            self._give(session, header, payload)

    def _give(self, session: int, header: bytes, payload: Buffer | None) -> None:
        """A defect is that session's, which finds its link lost; the others go on."""
        on_message = self.sessions.get(session)
        if on_message is None:
            return
        if attempt("peer.message_failed", partial(on_message, header, payload)) is not None:
            self.leave(session)


class _SessionLink:
    """See `Link`: a session's part of a connection."""

    def __init__(self, shared: _Shared, session: int) -> None:
        self._shared = shared
        self._session = session

    @property
    def _left(self) -> bool:
        return self._session not in self._shared.sessions

    @property
    def connected(self) -> bool:
        """See `Link.connected`."""
        return self._shared.link.connected and not self._left

    @property
    def ended(self) -> bool:
        """See `Link.ended`."""
        return self._shared.link.ended or self._left

    @property
    def trouble(self) -> str:
        """See `Link.trouble`."""
        return self._shared.link.trouble

    @property
    def refused(self) -> bool:
        """See `Link.refused`."""
        return self._shared.link.refused

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        """See `Link.send`."""
        if not self._left:
            self._shared.send(self._session, header, payload)

    def close(self) -> None:
        """See `Link.close`: the connection stays while others use it."""
        if not self._left:
            self._shared.leave(self._session)


class LinkPool:
    """Of one site. `most`: connections to a peer."""

    def __init__(self, transport: Transport, most: int = PEER_LINKS_MAX) -> None:
        self._transport = transport
        self._most = most
        self._shared: dict[PeerAddress, list[_Shared]] = {}

    def dial(self, address: PeerAddress, session: int, on_message: OnLinkMessage) -> Link:
        """A link for one session, whose id every message to it names. See `Transport.dial`."""
        there = [each for each in self._shared.get(address, ()) if each.sessions and not each.link.ended]
        if len(there) < self._most:
            there.append(_Shared(self._transport, address))
        self._shared = {
            other: open_ for other, open_ in self._shared.items() if any(s.sessions for s in open_)
        }
        self._shared[address] = there
        shared = min(there, key=lambda each: len(each.sessions))
        shared.join(session, on_message)
        return _SessionLink(shared, session)
