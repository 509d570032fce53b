"""Where a site's control server listens, as text: `ipc://PATH` or `tcp://HOST:PORT`. Sans-I/O."""

from __future__ import annotations

from protocol.errors import UsageError

CONTROL_SOCKET_NAME = "control.sock"
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
    size = len(path.encode("utf-8", "surrogateescape"))
    if size > IPC_PATH_BYTES_MAX:
        raise UsageError(
            f"the socket path {path} has {size} bytes; unix sockets allow {IPC_PATH_BYTES_MAX}",
            subject=path,
            next_step="use a shorter directory, or farshore site init --control ipc:///run/NAME.sock",
        )
    return path


def check_endpoint(endpoint: str) -> str:
    """The endpoint as it is. Raises UsageError unless it is `ipc:///PATH` or `tcp://HOST:PORT`."""
    if is_ipc(endpoint):
        ipc_path(endpoint)
        return endpoint
    host, colon, port = endpoint.removeprefix("tcp://").rpartition(":")
    if endpoint.startswith("tcp://") and host and colon and port.isdigit() and 0 < int(port) < 65_536:
        return endpoint
    raise UsageError(
        f"{endpoint!r} is no control endpoint",
        subject=endpoint,
        next_step="write ipc:///PATH or tcp://HOST:PORT",
    )
