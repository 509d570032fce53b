"""The hosts' door: NBD on a unix socket and on TCP, handshakes with a deadline, bounded connections.

A connection begins here in its handshake (`protocol.nbd.handshake` decides, this module moves the bytes) and
is handed to `NbdConnection` for transmission. Nothing of an export is opened before the handshake ended. One
host, a user or an address, has a bounded part of the connections. On TCP, TLS may begin in the middle of a
handshake, if `TcpRules` have it; its deadline is the handshake's. Who the host is decides which exports it
finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from engine.group.compartment import attempt, attempt_async
from engine.ports.unix_sockets import SocketAccess, bound_socket, remove_dead_socket
from protocol.errors import (
    Busy,
    FarshoreError,
    NotAllowed,
    RemoteProtocolError,
    machine_refused,
    system_error,
)
from protocol.hosts import NOBODY, certificate_host, user_host
from protocol.limits import NBD_CONNECTIONS_MAX, NBD_CONNECTIONS_PER_HOST, NBD_HANDSHAKE_TIMEOUT_S
from protocol.nbd.exports import ExportInfo, ExportLookup
from protocol.nbd.handshake import HandshakeState, ServerHandshake
from site_primary.nbd.block_status import StatusMap
from site_primary.nbd.connection import NbdConnection
from site_primary.nbd.exports import Export
from site_primary.nbd.host_budget import HostBudget
from site_primary.nbd.listener import NbdListener, tcp_sockets
from site_primary.nbd.lookups import Full, Told
from site_primary.nbd.socket_names import client_name, host_of, user_of
from site_primary.nbd.tls import TcpRules, TlsTransport

SOCKET_BUFFER_BYTES = 4 << 20
# Connections past a limit that are told so, at once and for how long; others are closed without a word.
REFUSED_AT_ONCE_MAX = 16
REFUSED_TIMEOUT_S = 2.0
# The owner and the group.
OWNER_AND_GROUP = SocketAccess(mode=0o660)


class ExportOpener(Protocol):
    """Exports that can be opened by those who may."""

    def seen_by(self, host: str) -> ExportLookup:
        """What a host (protocol/hosts.py) may open, as it may."""

    def open(self, info: ExportInfo) -> Export:
        """The export that `info` describes, for one connection. FarshoreError if it is gone meanwhile."""

    def maps(self, export: Export, contexts: Mapping[int, str]) -> Mapping[int, StatusMap]:
        """The metadata contexts of these names, for one connection. FarshoreError if a cut that one names is
        gone meanwhile: then nobody connects to the export."""


class NbdServer:
    """Listens, and keeps count. Addresses are `unix:PATH` and `tcp:HOST:PORT`. `access`: who may
    connect to those of the first kind."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        exports: ExportOpener,
        connections_per_host: int = NBD_CONNECTIONS_PER_HOST,
        access: SocketAccess = OWNER_AND_GROUP,
        emit: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        self._loop = loop
        self._emit = emit
        self.exports = exports
        self.budget = HostBudget(loop.call_soon, loop.call_later)
        self.log = self.budget.log
        self.connections: dict[HandshakeProtocol, str] = {}  # each with its host
        self.connections_per_host = connections_per_host
        self.tcp = TcpRules()
        self._access = access
        self._of_host: Counter[str] = Counter()
        self._refused_now: set[HandshakeProtocol] = set()
        self._listeners: dict[str, list[NbdListener]] = {}  # by address
        self._beginning: set[asyncio.Task[object]] = set()

    async def listen(self, address: str) -> None:
        """Take connections at an address. Busy if it is taken."""
        kind, _, place = address.partition(":")
        try:
            if kind == "unix":
                if not remove_dead_socket(place):
                    raise OSError(errno.EADDRINUSE, "a server answers there")
                sockets = [bound_socket(place, self._access)]
            else:
                host, _, port = place.rpartition(":")
                sockets = await tcp_sockets(self._loop, host.strip("[]"), int(port))
            self._listeners[address] = [
                NbdListener(self._loop, each, self._begin, self._refused) for each in sockets
            ]
        except OSError as error:
            if machine_refused(error):
                error.filename = error.filename or place
                raise system_error(error) from error
            raise Busy(
                f"cannot listen on {address}: {error.strerror or error}",
                subject=address,
                next_step=_way_out(kind, place),
            ) from error

    def stop_listening(self, address: str) -> None:
        """Take no more connections at an address; those that there are stay."""
        for listener in self._listeners.pop(address, ()):
            listener.close()
        kind, _, place = address.partition(":")
        if kind == "unix":
            with contextlib.suppress(OSError):  # gone, or on a disk that has become read-only
                os.unlink(place)

    def _begin(self, connection: socket.socket) -> None:
        task = self._loop.create_task(attempt_async("connection.defect", self._connect(connection)))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: HandshakeProtocol(self), connection)
        except OSError as error:
            connection.close()
            self._refused(error.strerror or str(error))

    def _refused(self, reason: str) -> None:
        self.log.warning("nbd.not_accepted", reason=reason)

    async def serve(self, connection: socket.socket) -> None:
        """Serve one connection that was made elsewhere, until it ends."""
        ended: asyncio.Future[None] = self._loop.create_future()
        await self._loop.connect_accepted_socket(
            lambda: HandshakeProtocol(self, lambda: None if ended.done() else ended.set_result(None)),
            connection,
        )
        await ended

    def admit(self, connection: HandshakeProtocol, host: str) -> str:
        """Count a connection of a host; why it may not stay, or nothing."""
        if len(self.connections) >= NBD_CONNECTIONS_MAX:
            return f"there are {NBD_CONNECTIONS_MAX} already"
        if self._of_host[host] >= self.connections_per_host:
            return f"{host} has {self._of_host[host]} already (nbd_connections_per_host)"
        self.connections[connection] = host
        self._of_host[host] += 1
        return ""

    def refuse(self, connection: HandshakeProtocol, host: str, client: str, reason: str) -> bool:
        """Say that one is past a limit; whether there is room to say so to itself as well."""
        self.log.warning("nbd.too_many_connections", client=client, reason=reason)
        self._emit("hosts.too_many", object=host, reason=reason)
        if len(self._refused_now) >= REFUSED_AT_ONCE_MAX:
            return False
        self._refused_now.add(connection)
        return True

    def forget(self, connection: HandshakeProtocol) -> None:
        """A connection has gone, counted or not."""
        self._refused_now.discard(connection)
        host = self.connections.pop(connection, None)
        if host is not None:
            self._of_host[host] -= 1
            if not self._of_host[host]:
                del self._of_host[host]

    async def close(self) -> None:
        """Stop listening and drop every connection; a host that holds its socket cannot delay it."""
        for address in list(self._listeners):
            self.stop_listening(address)
        for task in list(self._beginning):
            task.cancel()
        for connection in [*self.connections, *self._refused_now]:
            connection.abort()


class HandshakeProtocol(asyncio.Protocol):
    """One connection until it moves to transmission. `on_end` is called when it has gone."""

    def __init__(self, server: NbdServer, on_end: Callable[[], None] = lambda: None) -> None:
        self._server = server
        self._on_end = on_end
        self._handshake = ServerHandshake(server.exports.seen_by(NOBODY))
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._client = ""
        self._who = NOBODY
        self._refusal = ""  # why it finds nothing here
        self._rules = server.tcp  # those that it came under

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or close if there are too many."""
        # Not asyncio's to catch: it would leave the connection open.
        if attempt("connection.defect", self._greet, transport) is not None:
            transport.abort() if isinstance(transport, asyncio.Transport) else transport.close()

    def _greet(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("an NBD connection needs a stream")
        self._transport = transport
        sock = transport.get_extra_info("socket")
        self._client = client_name(sock)
        host = host_of(sock)
        self._refusal = self._server.admit(self, host)
        if self._refusal and not self._server.refuse(self, host, self._client, self._refusal):
            transport.abort()
            return
        if not self._know(sock):
            transport.abort()
            return
        # Whatever a host does not take at once is counted, and it is not read from meanwhile.
        transport.set_write_buffer_limits(high=0)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        loop = asyncio.get_running_loop()
        timeout_s = REFUSED_TIMEOUT_S if self._refusal else NBD_HANDSHAKE_TIMEOUT_S
        self._deadline = loop.call_later(timeout_s, attempt, "connection.defect", self.abort)
        transport.write(self._handshake.greeting())

    def _know(self, sock: socket.socket) -> bool:
        """Who it is, as far as that can be known yet, and how it may come; false if in no way."""
        rules = self._rules
        if sock.family == socket.AF_UNIX:
            self._who = user_host(user_of(sock))
            self._handshake = ServerHandshake(self._seen_by(self._who))
        elif rules.nobody:
            self._refused("there is no certificate to answer with (`farshore site cert init`)")
            return False
        else:
            self._handshake = ServerHandshake(
                self._seen_by(NOBODY),
                tls_available=rules.context is not None,
                tls_required=not rules.plain,
            )
        return True

    def _seen_by(self, who: str) -> ExportLookup:
        if self._refusal:
            return Full(self._refusal)
        return Told(self._server.exports.seen_by(who), self._not_allowed)

    def _not_allowed(self, export: str, error: NotAllowed) -> None:
        self._server.log.warning("nbd.not_allowed", client=self._client, export=export, error=error.message)

    def _refused(self, reason: str) -> None:
        self._server.log.warning("nbd.tls_refused", client=self._client, reason=reason)

    def data_received(self, data: bytes) -> None:
        """Feed the handshake; move on when it ends."""
        transport = self._transport
        if transport is None:
            return
        try:
            reply = self._handshake.receive(data)
        except RemoteProtocolError as error:
            self._server.log.warning("nbd.handshake_failed", client=self._client, error=str(error))
            self.abort()
            return
        if self._handshake.dropped_bytes:
            # An attacker's, who wants them taken for the client's (CVE-2021-3716): who asks has to wait.
            self._refused(f"{self._handshake.dropped_bytes} bytes came in the clear behind STARTTLS")
            self.abort()
            return
        if reply:
            transport.write(reply)
        if self._handshake.state is HandshakeState.TRANSMISSION:
            self._begin(transport)
        elif self._handshake.state is HandshakeState.STARTTLS:
            self._start_tls(transport)
        elif self._handshake.state is not HandshakeState.OPTIONS and self._handshake.finished_abort:
            if self._handshake.refusal is not None:
                self._server.log.info("nbd.refused", client=self._client, error=str(self._handshake.refusal))
            transport.close()

    def _start_tls(self, below: asyncio.Transport) -> None:
        context = self._rules.context
        if context is None:
            return
        self._transport = TlsTransport(
            below, self, context, self._server.budget, self._tls_up, self._tls_failed
        )
        below.set_protocol(self._transport)
        if below.get_write_buffer_size():
            self._transport.pause_reading()  # it was this object that was told

    def _tls_failed(self, why: str) -> None:
        ended = "; this site's certificate has ended: `farshore site cert init` renews it"
        self._refused(f"TLS: {why}{ended if self._rules.ended else ''}")

    def _tls_up(self, transport: TlsTransport) -> None:
        """The client's certificate is one of this site's."""
        try:
            name = transport.host_name
        except FarshoreError as error:
            self._refused(error.message)
            self.abort()
            return
        if self._is_revoked(transport):
            return
        self._who = certificate_host(name)
        self._client = f"{self._client} {self._who}"
        self._handshake.tls_started(self._seen_by(self._who))

    def _is_revoked(self, transport: asyncio.Transport) -> bool:
        """Whether its certificate is; then the connection is closed."""
        if not isinstance(transport, TlsTransport) or transport.serial not in self._server.tcp.revoked:
            return False
        self._refused(f"the certificate {transport.serial} of {transport.host_name} is revoked")
        self.abort()
        return True

    def _begin(self, transport: asyncio.Transport) -> None:
        negotiated = self._handshake.result
        if negotiated is None or self._is_revoked(transport):  # since TLS is up
            return
        try:
            export = self._server.exports.open(negotiated.export)
            maps = self._server.exports.maps(export, negotiated.meta_contexts)
        except FarshoreError as error:
            self._server.log.info(
                "nbd.refused", client=self._client, export=negotiated.export.name, error=str(error)
            )
            self.abort()
            return
        self._cancel_deadline()
        connection = NbdConnection(
            transport, export, negotiated, self._client, self._forget, maps, self._server.budget, self._who
        )
        transport.set_protocol(connection)
        if transport.get_write_buffer_size():
            connection.pause_writing()  # it was this object that was told
        self._server.log.info("nbd.connected", client=self._client, export=export.name)
        if self._handshake.leftover:
            connection.take(self._handshake.leftover)

    def pause_writing(self) -> None:
        """It does not take its replies: nothing more is read from it until it does."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone before transmission."""
        if self._handshake.refused_clear and not isinstance(self._transport, TlsTransport):
            self._refused("it asked in the clear, and this door talks over TLS only")
        self._forget()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        self._cancel_deadline()
        self._server.forget(self)
        self._on_end()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _way_out(kind: str, place: str) -> str:
    if kind == "unix" and not os.path.isdir(os.path.dirname(place)):
        return f"make {os.path.dirname(place)}, or change `nbd` in site.toml"
    if kind == "unix" and os.path.lexists(place) and not stat.S_ISSOCK(os.lstat(place).st_mode):
        return f"move {place} away, which is no socket, or change `nbd` in site.toml"
    return "stop what listens there, or change `nbd` in site.toml"
