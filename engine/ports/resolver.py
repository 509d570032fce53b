"""Names of hosts to addresses, outside ZeroMQ: libzmq would look them up in its one I/O thread, and a name
server that does not answer would hold up every connection of the site.

Each name is looked up in a thread of its own, never twice at a time. An answer is fresh for a few seconds, so
that a site that dials once for each of its groups asks once. After that it is asked for again, and serves in
place of a new one only while that does not come: a peer stays within reach although the name server is gone.

A look-up cannot be ended: a thread that nobody waits for any more ends with what the system's resolver does,
and never keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from engine.group.compartment import attempt

FRESH_S = 5.0
# So long a new answer is waited for where there is an old one.
PATIENCE_S = 2.0

LookUp = Callable[[str], list[str]]


class Asker(Protocol):
    """Who wants to know; told apart by identity."""

    def resolved(self, addresses: tuple[str, ...], trouble: str) -> None:
        """The addresses of the name, v4 or v6, at least one; or none, and why."""


def look_up(host: str) -> list[str]:
    """A host's addresses in the order of the system's preference (getaddrinfo(3)); OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def is_address(host: str) -> bool:
    """Whether there is nothing to look up: an IPv4 address, or an IPv6 address in brackets."""
    if host.startswith("["):
        return True
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def endpoint_at(address: str, port: str) -> str:
    """As ZeroMQ takes it."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


class Resolver:
    """Of one process. `look` blocks; it is called in threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, look: LookUp = look_up) -> None:
        self._loop = loop
        self._look = look
        self._known: dict[str, tuple[tuple[str, ...], float]] = {}  # the newest answer, and when it came
        self._waiting: dict[str, dict[Asker, None]] = {}
        self._looking: set[str] = set()

    def ask(self, host: str, asker: Asker) -> None:
        """Tell `asker`, in another turn of the loop. Once, unless it is dropped before."""
        self._waiting.setdefault(host, {})[asker] = None
        addresses, at_s = self._known.get(host, ((), 0.0))
        if addresses and self._loop.time() - at_s <= FRESH_S:
            self._loop.call_soon(self._tell_known, host)
            return
        if addresses:
            self._loop.call_later(PATIENCE_S, self._tell_known, host)
        if host not in self._looking:
            self._looking.add(host)
            threading.Thread(target=self._run, args=(host,), name=f"resolve {host}", daemon=True).start()

    def drop(self, host: str, asker: Asker) -> None:
        """It does not want to know any more; one that did not ask is fine."""
        waiting = self._waiting.get(host, {})
        waiting.pop(asker, None)
        if not waiting:
            self._waiting.pop(host, None)

    def _run(self, host: str) -> None:
        """In a thread."""
        addresses: tuple[str, ...] = ()
        try:
            addresses, trouble = tuple(self._look(host)), f"{host} has no address"
        except (OSError, UnicodeError) as error:  # a label of over 63 characters
            trouble = f"{host} cannot be looked up: {error}"
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._found, host, addresses, trouble)

    def _found(self, host: str, addresses: tuple[str, ...], trouble: str) -> None:
        self._looking.discard(host)
        if addresses:
            self._known[host] = addresses, self._loop.time()
        else:
            addresses, _ = self._known.get(host, ((), 0.0))
        self._tell(host, addresses, "" if addresses else trouble)

    def _tell_known(self, host: str) -> None:
        self._tell(host, self._known[host][0], "")

    def _tell(self, host: str, addresses: tuple[str, ...], trouble: str) -> None:
        for asker in self._waiting.pop(host, {}):
            attempt("peer.resolve_failed", asker.resolved, addresses, trouble)
