"""Connections to the replication port: how many there may be at once, without a proven key and of each key.

libzmq accepts whoever connects, in a thread of its own, and holds a descriptor and up to one message of
memory for each until its handshake is done or has timed out; it has no option to bound that. So every
accepted connection is counted here, by the socket's monitor, until its first message: only a known key gets
one through. Above the bound the oldest one is shut down, of the address that has the most, so that a flooding
address does not shut out the others (docs/decisions/0016).

Connections of a key that is known are counted from then on: each may hold part of a message too. Above
`PEER_CONNECTIONS_MAX` the oldest of that key is shut down; a peer that lost it makes another. So is one of
which nothing more is taken: ROUTER has no way to close it, and its other end would wait in vain.

A flood cannot outrun this by much: libzmq's thread waits while the monitor's queue (1,000 events) is full.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter

import structlog
import zmq

from engine.ports.zmq_pump import Parts, SocketPump
from protocol.limits import PEER_CONNECTIONS_MAX, REPLICATION_STRANGERS_MAX

log = structlog.get_logger()

# One line in the log for so many.
LOGGED_EVERY = 1000
Place = tuple[str, int]  # host and port
Connection = tuple[int, Place]  # by descriptor, and whom it was connected to


class StrangerGuard:
    """Watches one listening socket; made before it binds. `close` comes before the socket's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        server: zmq.Socket[bytes],
        most: int = REPLICATION_STRANGERS_MAX,
        most_of_a_key: int = PEER_CONNECTIONS_MAX,
    ) -> None:
        self._server = server
        self._most = most
        self._most_of_a_key = most_of_a_key
        self._strangers: dict[int, Place] = {}  # by descriptor; oldest first
        self._known: dict[str, dict[int, Place]] = {}  # the same, by key
        self._key_of: dict[int, str] = {}  # by descriptor
        self._shut = 0
        self._shut_known = 0
        monitor = server.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        monitor.set(zmq.LINGER, 0)
        self._pump = SocketPump(loop, monitor, self._on_event)

    @property
    def count(self) -> int:
        """Strangers now."""
        return len(self._strangers)

    def count_of(self, key: str) -> int:
        """Connections of a known key now."""
        return len(self._known.get(key, ()))

    def proven(self, message: zmq.Frame, key: str) -> Connection | None:
        """A message came through: whoever sent it has this key, which is known here. By which connection, for
        `shut`; None if it is gone already."""
        descriptor = int(message.get(zmq.SRCFD))
        peer = self._strangers.pop(descriptor, None)
        if self._key_of.get(descriptor) == key:
            return descriptor, self._known[key][descriptor]
        # The message may come before the event that says that its connection was accepted.
        peer = peer or _peer_of(descriptor)
        if peer is None:
            return None
        self._forget(descriptor)
        self._key_of[descriptor] = key
        known = self._known.setdefault(key, {})
        known[descriptor] = peer
        if len(known) > self._most_of_a_key:
            self._shut_oldest(key, known)
        return descriptor, peer

    def shut(self, connection: Connection | None) -> None:
        """End what `proven` gave, if it is still there: whoever dialled is told at once. libzmq's event about
        that has it forgotten here."""
        if connection is not None:
            descriptor, peer = connection
            _peer_of(descriptor, shut_if=peer)

    def close(self) -> None:
        """Watch no more; twice is fine."""
        if not self._pump.closed:
            # In this order: libzmq's thread would wait for ever to send an event that nobody can receive.
            self._server.disable_monitor()
            self._pump.close()

    def _on_event(self, parts: Parts) -> None:
        """One event of libzmq's monitor: u16 event, i32 descriptor; then the endpoint."""
        event, descriptor = struct.unpack_from("=Hi", parts[0].bytes)
        self._strangers.pop(descriptor, None)
        peer = _peer_of(descriptor) if event == zmq.EVENT_ACCEPTED else None
        key = self._key_of.get(descriptor)
        if key is not None and peer is not None and self._known[key][descriptor] == peer:
            return  # its first message was here before this
        self._forget(descriptor)
        if peer is not None:
            self._strangers[descriptor] = peer
            if len(self._strangers) > self._most:
                self._shut_one()

    def _forget(self, descriptor: int) -> None:
        key = self._key_of.pop(descriptor, None)
        if key is not None:
            del self._known[key][descriptor]
            if not self._known[key]:
                del self._known[key]

    def _shut_oldest(self, key: str, known: dict[int, Place]) -> None:
        descriptor, peer = next(iter(known.items()))
        self._forget(descriptor)
        _peer_of(descriptor, shut_if=peer)
        if self._shut_known % LOGGED_EVERY == 0:
            limit, shut = self._most_of_a_key, self._shut_known + 1
            log.warning("peer.too_many_connections", address=peer[0], key=key, limit=limit, shut=shut)
        self._shut_known += 1

    def _shut_one(self) -> None:
        host, _ = Counter(name for name, _ in self._strangers.values()).most_common(1)[0]
        descriptor = next(each for each, peer in self._strangers.items() if peer[0] == host)
        peer = self._strangers.pop(descriptor)
        _peer_of(descriptor, shut_if=peer)
        if self._shut % LOGGED_EVERY == 0:
            log.warning("peer.too_many_strangers", address=host, limit=self._most, shut=self._shut + 1)
        self._shut += 1


def _peer_of(descriptor: int, shut_if: Place | None = None) -> Place | None:
    """Whom a descriptor of libzmq's is connected to, None if to nobody any more; shut down if that is
    `shut_if`.

    libzmq may close it at any time, and the number may then be another file's: a duplicate stays what it was
    when it was looked at.
    """
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            name = connection.getpeername()
            peer = (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
            if peer is not None and peer == shut_if:
                connection.shutdown(socket.SHUT_RDWR)
            return peer
    except OSError:
        return None
