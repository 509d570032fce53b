"""The service manager's side of sd_notify(3): a real datagram socket that keeps what it is told."""

from __future__ import annotations

import os
import socket
from typing import Self

TIMEOUT_S = 30.0
MESSAGE_BYTES_MAX = 65_536


class NotifySocket:
    """Bound to a path, or after `@` to an abstract name; `name` is what NOTIFY_SOCKET must hold."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        if not self.name.startswith("@"):
            os.unlink(self.name)

    def take(self) -> str:
        """The next message; waits for it. Raises TimeoutError."""
        self._socket.settimeout(TIMEOUT_S)
        return self._socket.recv(MESSAGE_BYTES_MAX).decode()

    def waiting(self) -> list[str]:
        """What has come so far."""
        self._socket.setblocking(False)
        found = []
        while True:
            try:
                found.append(self._socket.recv(MESSAGE_BYTES_MAX).decode())
            except BlockingIOError:
                return found
