"""Connecting to an export: the socket, and NBD's handshake over it. Callers say what a failure means to them.

The server is a site's daemon, the child that reads a dead site's directory, or qemu-nbd in front of a file.
"""

from __future__ import annotations

import socket

from protocol.errors import FarshoreError
from protocol.nbd.client import ClientHandshake

RECEIVE_BYTES = 1 << 20


def dial(where: str | tuple[str, int], timeout_s: float) -> socket.socket:
    """A connection to a unix socket's path, or to host and port, of which nothing may take longer than
    `timeout_s`. OSError."""
    if isinstance(where, tuple):
        return socket.create_connection(where, timeout_s)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(where)
    except BaseException:
        connection.close()
        raise
    return connection


def shake_hands(
    connection: socket.socket,
    export: str,
    *,
    structured: bool = True,
    contexts: tuple[str, ...] = (),
    refusal: type[FarshoreError] = FarshoreError,
) -> ClientHandshake:
    """The handshake, done: what follows is transmission. Without it the connection is closed, and this raises
    `refusal` with the server's words, OSError if the server goes away, RemoteProtocolError."""
    handshake = ClientHandshake(export, structured=structured, contexts=contexts)
    try:
        while not handshake.done:
            connection.sendall(handshake.receive(received(connection)))
        if handshake.refusal is not None:
            said = handshake.refusal.text
            raise refusal(f"{export or 'the export'} was refused: {said}", subject=export)
    except BaseException:
        connection.close()
        raise
    return handshake


def received(connection: socket.socket) -> bytes:
    """What has come, at least a byte. OSError, also if the server has closed the connection."""
    data = connection.recv(RECEIVE_BYTES)
    if not data:
        raise ConnectionResetError("the daemon closed the connection")
    return data
