"""A connection to an export whose handshake is done: for a process that is to reach this export only."""

from __future__ import annotations

import socket

from console.host_configs import Export
from protocol.errors import FarshoreError, Refused, Unreachable
from protocol.nbd.client import ClientHandshake

TIMEOUT_S = 30.0
_RECEIVE_BYTES = 4096


def connect(export: Export) -> tuple[socket.socket, int]:
    """A blocking socket in NBD's transmission phase with simple replies, and the export's size in bytes.

    Raises Unreachable, Refused for TLS, FarshoreError with what the server refused.
    """
    if export.tls:
        raise Refused(
            f"{export.name} is offered with TLS only",
            subject=export.name,
            next_step="add a unix socket to nbd in the site's site.toml, and run this at the site",
        )
    family = socket.AF_UNIX if export.unix else socket.AF_UNSPEC
    where = export.unix or f"{export.host}:{export.port}"
    try:
        if family == socket.AF_UNIX:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(TIMEOUT_S)
            connection.connect(export.unix)
        else:
            connection = socket.create_connection((export.host, export.port), timeout=TIMEOUT_S)
    except OSError as error:
        raise Unreachable(
            f"hosts cannot connect to {where}: {error.strerror or error}",
            subject=export.name,
            next_step="farshore status",
        ) from error
    try:
        size_bytes = _handshake(connection, export.name, where)
    except BaseException:
        connection.close()
        raise
    return connection, size_bytes


def _handshake(connection: socket.socket, name: str, where: str) -> int:
    handshake = ClientHandshake(name, structured=False)
    try:
        while not handshake.done:
            data = connection.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection")
            connection.sendall(handshake.receive(data))
    except OSError as error:
        raise Unreachable(f"no handshake at {where}: {error}", subject=name) from error
    if handshake.refusal is not None:
        raise FarshoreError(f"{name} was refused: {handshake.refusal.text}", subject=name)
    connection.settimeout(None)
    return handshake.size_bytes
