"""Where hosts knock: listening sockets, those on TCP made here, and how many who knock are let in at once.

Few are accepted in one round of the loop, because each costs those who are served already; the rest wait in
the socket's backlog. A descriptor that would eat into the reserve is closed again at once, so that strangers
who connect and wait can never take those that the journal needs for a host's write.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Callable

from protocol.limits import (
    NBD_ACCEPT_PAUSE_S,
    NBD_ACCEPTS_A_ROUND,
    NBD_BACKLOG,
    NBD_DESCRIPTORS_RESERVED,
    NBD_KEEPALIVE_EVERY_S,
    NBD_KEEPALIVE_IDLE_S,
    NBD_KEEPALIVE_TRIES,
    NBD_SILENT_S,
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


async def tcp_sockets(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[socket.socket]:
    """Sockets at every address of a name, as asyncio's own servers have them. OSError if one is taken."""
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as undo:
        sockets = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = undo.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _end_with_the_host(listening)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            sockets.append(listening)
        undo.pop_all()
    return sockets


def _end_with_the_host(listening: socket.socket) -> None:
    """Have what is accepted here end soon after its host's machine did (tcp(7)): by probes while nothing is
    on the way, else once what was sent stays without an acknowledgement. Accepted sockets inherit this."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, NBD_KEEPALIVE_IDLE_S),
        (socket.TCP_KEEPINTVL, NBD_KEEPALIVE_EVERY_S),
        (socket.TCP_KEEPCNT, NBD_KEEPALIVE_TRIES),
        (socket.TCP_USER_TIMEOUT, 1000 * NBD_SILENT_S),
    ):
        listening.setsockopt(socket.IPPROTO_TCP, option, value)
