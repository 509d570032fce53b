"""A connection to an export whose handshake is done: for a process that is to reach this export only."""

from __future__ import annotations

import socket

from console.host_configs import Export
from console.nbd_connection import dial, shake_hands
from protocol.errors import Refused, Unreachable

TIMEOUT_S = 30.0


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
    where = export.unix or f"{export.host}:{export.port}"
    try:
        connection = dial(export.unix or (export.host, export.port), TIMEOUT_S)
    except OSError as error:
        raise Unreachable(
            f"hosts cannot connect to {where}: {error.strerror or error}",
            subject=export.name,
            next_step="farshore status",
        ) from error
    try:
        handshake = shake_hands(connection, export.name, structured=False)
    except OSError as error:
        raise Unreachable(f"no handshake at {where}: {error}", subject=export.name) from error
    connection.settimeout(None)
    return connection, handshake.size_bytes
