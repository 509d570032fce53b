"""Addresses as text, each checked here before it is kept or used. Sans-I/O.

    control        ipc:///PATH or tcp://HOST:PORT
    replication    tcp://HOST:PORT; HOST may be * (every address) or an interface where it is listened on
    hosts' doors   unix:PATH or tcp:HOST:PORT

ZeroMQ takes more in an endpoint than these (other schemes, a source address before `;`): what is not above is
refused, so that a token or a config line cannot have the daemon open something else.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from protocol.errors import UsageError

REPLICATION_PORT = 7401  # where no other is named

CONTROL_SOCKET_NAME = "control.sock"
# RFC 1035, section 2.3.4, as text.
HOST_CHARS_MAX = 253
PORT_MAX = 65_535
ENDPOINT_CHARS_MAX = len("tcp://") + HOST_CHARS_MAX + len(":65535")
# A name, an IPv4 address, or an IPv6 address in brackets with its zone (RFC 4007, section 11).
_HOST = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?\]", re.ASCII
)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
# But a tab: directories had one before this was looked at.
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
# sizeof(sockaddr_un.sun_path) on Linux, less its terminating zero (unix(7)).
IPC_PATH_BYTES_MAX = 107


def control_endpoint(directory: str) -> str:
    """The default endpoint of the site in an absolute directory. Raises UsageError for too long a path."""
    endpoint = f"ipc://{directory.rstrip('/')}/{CONTROL_SOCKET_NAME}"
    ipc_path(endpoint)
    return endpoint


def is_ipc(endpoint: str) -> bool:
    """Whether the endpoint is a unix socket."""
    return endpoint.startswith("ipc://")


def ipc_path(endpoint: str) -> str:
    """The socket's path. Raises UsageError for a relative, abstract or too long one.

    Abstract sockets have no permissions, so any user could talk to the daemon.
    """
    path = endpoint.removeprefix("ipc://")
    if not path.startswith("/"):
        raise UsageError(
            f"{endpoint} is not an absolute path", subject=endpoint, next_step="write ipc:///PATH"
        )
    _check_path(path, "use a shorter directory, or farshore site init --control ipc:///run/NAME.sock")
    return path


def check_endpoint(endpoint: str) -> str:
    """A control endpoint as it is. Raises UsageError unless it is `ipc:///PATH` or `tcp://HOST:PORT`."""
    if is_ipc(endpoint):
        ipc_path(endpoint)
        return endpoint
    if endpoint.startswith("tcp://") and _is_host_and_port(endpoint.removeprefix("tcp://")):
        return endpoint
    raise UsageError(
        f"{endpoint!r} is no control endpoint",
        subject=endpoint,
        next_step="write ipc:///PATH or tcp://HOST:PORT",
    )


def check_peer_endpoint(endpoint: str) -> str:
    """Where a peer is dialled, as it is. Raises UsageError unless it is `tcp://HOST:PORT`."""
    if endpoint.startswith("tcp://*:"):
        raise _undialled(endpoint)
    if endpoint.startswith("tcp://") and _is_host_and_port(endpoint.removeprefix("tcp://")):
        return endpoint
    raise UsageError(
        f"endpoint {endpoint!r} is not tcp://HOST:PORT",
        subject=endpoint,
        next_step="write tcp://HOST:PORT, with a name or an address that peers reach",
    )


def check_dialled_endpoint(endpoint: str) -> str:
    """As `check_peer_endpoint`, of what is said anew: `0.0.0.0`, which files may have, is refused too."""
    if is_every_address(endpoint):
        raise _undialled(endpoint)
    return check_peer_endpoint(endpoint)


def is_every_address(endpoint: str) -> bool:
    """Whether its host is a place to listen only: who dials `0.0.0.0` reaches himself."""
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return host == "*" or ip_address(host).is_unspecified
    except ValueError:
        return False


def _undialled(endpoint: str) -> UsageError:
    return UsageError(
        f"nobody can dial {endpoint}, which is every address of a machine",
        subject=endpoint,
        next_step='advertise = "tcp://HOST:PORT" in that site\'s site.toml, and restart; then its new token',
    )


def dialled(text: str) -> str:
    """`10.0.0.1`, `[fe80::1]:7402` or `backup.example` as `tcp://HOST:PORT`, at `REPLICATION_PORT` if none is
    named; all else as it is."""
    if "://" in text or not text:
        return text
    host, colon, port = text.rpartition(":")
    if text.endswith("]") or not colon:
        host, port = text, str(REPLICATION_PORT)
    return f"tcp://{host}:{port}"


def check_listen_endpoint(endpoint: str) -> str:
    """Where a site listens for peers, as it is; the host may be `*`. Raises UsageError."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if endpoint.startswith("tcp://") and _is_host_and_port(f"{'any' if host == '*' else host}:{port}"):
        return endpoint
    raise UsageError(
        f"endpoint {endpoint!r} is not tcp://HOST:PORT", subject=endpoint, next_step="write tcp://HOST:PORT"
    )


def check_nbd_address(address: str) -> str:
    """A hosts' door, as it is. Raises UsageError unless it is `unix:PATH` or `tcp:HOST:PORT`."""
    kind, _, place = address.partition(":")
    if kind == "unix" and place:
        if not place.startswith("/"):
            raise UsageError(
                f"{address} is not an absolute path", subject=address, next_step=f"write unix:/{place}"
            )
        _check_path(place, "use a shorter path")
        return address
    # An empty host is every address, as for asyncio and QEMU.
    if kind == "tcp" and _is_host_and_port(f"any{place}" if place.startswith(":") else place):
        return address
    raise UsageError(f"nbd address {address!r} is neither unix:PATH nor tcp:HOST:PORT", subject=address)


def _is_host_and_port(text: str) -> bool:
    host, _, port = text.rpartition(":")
    if len(host) > HOST_CHARS_MAX or _HOST.fullmatch(host) is None or _PORT.fullmatch(port) is None:
        return False
    return int(port) <= PORT_MAX


def _check_path(path: str, hint: str) -> None:
    """That a socket's path fits a sockaddr_un, and has nothing in it that would break the line it is in."""
    size = len(path.encode("utf-8", "surrogateescape"))
    if size > IPC_PATH_BYTES_MAX:
        raise UsageError(
            f"the socket path {path} has {size} bytes; unix sockets allow {IPC_PATH_BYTES_MAX}",
            subject=path,
            next_step=hint,
        )
    if any(0xD800 <= ord(each) <= 0xDFFF for each in path):
        raise UsageError(
            f"the socket path {path!r} is not UTF-8", subject=path, next_step="use a path whose name is UTF-8"
        )
    if _CONTROLS.search(path):
        raise UsageError(f"the socket path {path!r} has control characters in it", subject=path)
