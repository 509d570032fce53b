"""Where hosts knock: listening sockets on a unix path or on TCP, and how many who knock are let in at once.

Few are accepted in one round of the loop, because each costs those who are served already; the rest wait in
the socket's backlog. A descriptor that would eat into the reserve is closed again at once, so that strangers
who connect and wait can never take those that the journal needs for a host's write.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import stat
from collections.abc import Callable

from protocol.limits import (
    NBD_ACCEPT_PAUSE_S,
    NBD_ACCEPTS_A_ROUND,
    NBD_BACKLOG,
    NBD_DESCRIPTORS_RESERVED,
)

# The reserve of a process that may open few.
RESERVED_PART = 8


class NbdListener:
    """One listening socket. `take` gets each connection, not blocking, with a descriptor outside the reserve;
    `full` is told of one that was closed instead. OSError if it cannot listen."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        take: Callable[[socket.socket], None],
        full: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._socket = listening
        self._take = take
        self._full = full
        self._paused: asyncio.TimerHandle | None = None
        self._descriptors = descriptors_for_hosts()
        listening.setblocking(False)
        listening.listen(NBD_BACKLOG)
        loop.add_reader(listening, self._accept)

    def _accept(self) -> None:
        for _ in range(NBD_ACCEPTS_A_ROUND):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                # No descriptor, or no memory, is left to refuse with: the socket would stay readable.
                self._full(error.strerror or str(error))
                self._loop.remove_reader(self._socket)
                self._paused = self._loop.call_later(NBD_ACCEPT_PAUSE_S, self._go_on)
                return
            # The system gives the lowest that is free: all below are in use.
            if connection.fileno() >= self._descriptors:
                connection.close()
                self._full("the descriptors left are kept for the journal and the peers")
                continue
            connection.setblocking(False)
            self._take(connection)

    def _go_on(self) -> None:
        self._paused = None
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Listen no more."""
        if self._paused is not None:
            self._paused.cancel()
        else:
            self._loop.remove_reader(self._socket)
        self._socket.close()


def descriptors_for_hosts() -> int:
    """Descriptors below this number may be hosts' connections."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - min(NBD_DESCRIPTORS_RESERVED, limit // RESERVED_PART)


def unix_socket(path: str) -> socket.socket:
    """A socket at a path, for its owner and group. OSError (EADDRINUSE) if something is there already that is
    not a killed run's socket."""
    remove_dead_socket(path)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(path)
        os.chmod(path, 0o660)
    except OSError:
        listening.close()
        raise
    return listening


async def tcp_sockets(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[socket.socket]:
    """Sockets at every address of a name, as asyncio's own servers have them. OSError if one is taken."""
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as undo:
        sockets = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = undo.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            sockets.append(listening)
        undo.pop_all()
    return sockets


def remove_dead_socket(path: str) -> None:
    """Remove a socket file left by a killed run. OSError (EADDRINUSE) if a server answers there."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        # A live server whose backlog is full must not be waited for, and is none that was killed.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "a server answers there")
