"""The hosts' door: NBD on a unix socket and on TCP, handshakes with a deadline, bounded connections.

A connection begins here in its handshake (`protocol.nbd.handshake` decides, this module moves the bytes) and
is handed to `NbdConnection` for transmission. Nothing of an export is opened before the handshake ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from protocol.errors import Busy, FarshoreError, RemoteProtocolError
from protocol.limits import NBD_CONNECTIONS_MAX, NBD_HANDSHAKE_TIMEOUT_S
from protocol.nbd.exports import ExportInfo, ExportLookup
from protocol.nbd.handshake import HandshakeState, ServerHandshake
from site_primary.block_status import StatusMap
from site_primary.exports import Export
from site_primary.nbd_connection import NbdConnection

log = structlog.get_logger()

SOCKET_BUFFER_BYTES = 4 << 20


class ExportOpener(ExportLookup, Protocol):
    """A lookup whose exports can be opened."""

    def open(self, info: ExportInfo) -> Export:
        """The export that `info` describes, for one connection. FarshoreError if it is gone meanwhile."""

    def maps(self, export: Export, contexts: Mapping[int, str]) -> Mapping[int, StatusMap]:
        """The metadata contexts of these names, for one connection. FarshoreError if a cut that one names is
        gone meanwhile: then nobody connects to the export."""


class NbdServer:
    """Listens, and keeps count. Addresses are `unix:PATH` and `tcp:HOST:PORT`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, exports: ExportOpener) -> None:
        self._loop = loop
        self.exports = exports
        self._servers: list[asyncio.AbstractServer] = []
        self.connections: set[HandshakeProtocol] = set()
        self._unix_paths: list[str] = []

    async def listen(self, address: str) -> None:
        """Take connections at an address. Busy if it is taken."""
        kind, _, place = address.partition(":")
        try:
            if kind == "unix":
                self._servers.append(await self._listen_unix(place))
            else:
                host, _, port = place.rpartition(":")
                self._servers.append(
                    await self._loop.create_server(
                        lambda: HandshakeProtocol(self), host.strip("[]"), int(port)
                    )
                )
        except OSError as error:
            raise Busy(
                f"cannot listen on {address}: {error.strerror or error}",
                subject=address,
                next_step="stop what listens there, or change `nbd` in site.toml",
            ) from error

    async def _listen_unix(self, path: str) -> asyncio.AbstractServer:
        remove_dead_socket(path)
        server = await self._loop.create_unix_server(lambda: HandshakeProtocol(self), path)
        os.chmod(path, 0o660)
        self._unix_paths.append(path)
        return server

    async def serve(self, connection: socket.socket) -> None:
        """Serve one connection that was made elsewhere, until it ends."""
        ended: asyncio.Future[None] = self._loop.create_future()
        await self._loop.connect_accepted_socket(
            lambda: HandshakeProtocol(self, lambda: None if ended.done() else ended.set_result(None)),
            connection,
        )
        await ended

    async def close(self) -> None:
        """Stop listening and drop every connection; a host that holds its socket cannot delay it."""
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.abort()
        for path in self._unix_paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


class HandshakeProtocol(asyncio.Protocol):
    """One connection until it moves to transmission. `on_end` is called when it has gone."""

    def __init__(self, server: NbdServer, on_end: Callable[[], None] = lambda: None) -> None:
        self._server = server
        self._on_end = on_end
        self._handshake = ServerHandshake(server.exports)
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._client = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or close if there are too many."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("an NBD connection needs a stream")
        self._transport = transport
        sock = transport.get_extra_info("socket")
        self._client = client_name(sock)
        if len(self._server.connections) >= NBD_CONNECTIONS_MAX:
            log.warning("nbd.too_many_connections", client=self._client, limit=NBD_CONNECTIONS_MAX)
            transport.abort()
            return
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        self._server.connections.add(self)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(NBD_HANDSHAKE_TIMEOUT_S, self.abort)
        transport.write(self._handshake.greeting())

    def data_received(self, data: bytes) -> None:
        """Feed the handshake; move on when it ends."""
        transport = self._transport
        if transport is None:
            return
        try:
            reply = self._handshake.receive(data)
        except RemoteProtocolError as error:
            log.warning("nbd.handshake_failed", client=self._client, error=str(error))
            self.abort()
            return
        if reply:
            transport.write(reply)
        if self._handshake.state is HandshakeState.TRANSMISSION:
            self._begin(transport)
        elif self._handshake.state is not HandshakeState.OPTIONS and self._handshake.finished_abort:
            if self._handshake.refusal is not None:
                log.info("nbd.refused", client=self._client, error=str(self._handshake.refusal))
            transport.close()

    def _begin(self, transport: asyncio.Transport) -> None:
        negotiated = self._handshake.result
        if negotiated is None:
            return
        try:
            export = self._server.exports.open(negotiated.export)
            maps = self._server.exports.maps(export, negotiated.meta_contexts)
        except FarshoreError as error:
            log.info("nbd.refused", client=self._client, export=negotiated.export.name, error=str(error))
            self.abort()
            return
        self._cancel_deadline()
        connection = NbdConnection(transport, export, negotiated, self._client, self._forget, maps)
        transport.set_protocol(connection)
        log.info("nbd.connected", client=self._client, export=export.name)
        if self._handshake.leftover:
            connection.take(self._handshake.leftover)

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone before transmission."""
        self._forget()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        self._cancel_deadline()
        self._server.connections.discard(self)
        self._on_end()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def remove_dead_socket(path: str) -> None:
    """Remove a socket file left by a killed run. OSError (EADDRINUSE) if a server answers there."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, "a server answers there")


def client_name(sock: socket.socket) -> str:
    """Who a connection comes from: process and user on a unix socket, address on TCP."""
    if sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid = (int.from_bytes(credentials[at : at + 4], "little") for at in (0, 4))
        return f"pid {pid} uid {uid}"
    host, port = sock.getpeername()[:2]
    return f"{host}:{port}"
