"""What an accepted socket says of who is at its other end."""

from __future__ import annotations

import ipaddress
import socket
import struct


def _process_and_user(sock: socket.socket) -> tuple[int, int]:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


def user_of(sock: socket.socket) -> int:
    """The number of the user at the other end of a unix socket."""
    return _process_and_user(sock)[1]


def client_name(sock: socket.socket) -> str:
    """Who a connection comes from: process and user on a unix socket, address on TCP."""
    if sock.family == socket.AF_UNIX:
        pid, uid = _process_and_user(sock)
        return f"pid {pid} uid {uid}"
    host, port = sock.getpeername()[:2]
    return f"{host}:{port}"


def host_of(sock: socket.socket) -> str:
    """Whose part of the connections one takes: a user's on a unix socket, an address's on TCP. Of IPv6 the
    first 64 bits count, because one machine has all of the rest."""
    if sock.family == socket.AF_UNIX:
        return f"uid {_process_and_user(sock)[1]}"
    address = ipaddress.ip_address(sock.getpeername()[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
