"""When a link dials: at once while few others to that peer do, else in its turn; never once it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import zmq

from engine.ports.resolver import Resolver
from engine.ports.transport import PeerAddress
from engine.ports.zmq_link import DialledLink
from engine.ports.zmq_turns import DialTurns
from protocol.limits import DIALS_AT_ONCE_MAX

FULL = [str(number) for number in range(DIALS_AT_ONCE_MAX)]


class Dialling:
    """The links' transport, and a peer that takes connections and says nothing. `dialled` are the names of
    those that made a socket, in order; `refused` get none."""

    def __init__(self, refused: str = "") -> None:
        self.loop = asyncio.get_running_loop()
        self.turns = DialTurns()
        self.resolver = Resolver(self.loop)
        self.dialled: list[str] = []
        self._refused = refused
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._peer = self._context.socket(zmq.STREAM)
        self._peer.bind("tcp://127.0.0.1:*")
        self._endpoint = bytes(self._peer.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        self._links: list[DialledLink] = []

    def link(self, name: str) -> DialledLink:
        address = PeerAddress(name=name, endpoint=self._endpoint, public_key="")
        made = DialledLink(self, address, lambda *_: None)
        self._links.append(made)
        return made

    def client_socket(self, address: PeerAddress) -> zmq.Socket[bytes]:
        if address.name == self._refused:
            raise OSError("no descriptor left")
        self.dialled.append(address.name)
        return self._context.socket(zmq.DEALER)

    def forget(self, link: DialledLink) -> None:
        pass

    def key_used(self, peer: str, key: str) -> None:
        pass

    async def rounds(self) -> None:
        """What is due soon is done."""
        for _ in range(3):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """As a transport does it: one link after the other. None may dial meanwhile."""
        dialled = list(self.dialled)
        for link in self._links:
            link.close()
        await self.rounds()
        self._context.destroy(0)
        assert self.dialled == dialled


def play(course: Callable[[Dialling], Awaitable[None]], refused: str = "") -> None:
    """Run it, then close every link, also those that still wait."""

    async def run() -> None:
        dialling = Dialling(refused)
        try:
            await course(dialling)
        finally:
            await dialling.close()

    asyncio.run(run())


def test_it_waits_for_its_turn_and_is_passed_over_once_it_is_closed() -> None:
    async def course(dialling: Dialling) -> None:
        links = [dialling.link(name) for name in (*FULL, "closed", "next", "last", "never")]
        assert dialling.dialled == FULL
        links[len(FULL)].close()
        links[1].close()
        await dialling.rounds()
        assert dialling.dialled == [*FULL, "next"]
        links[0].close()
        await dialling.rounds()
        assert dialling.dialled == [*FULL, "next", "last"]

    play(course)


def test_an_attempt_that_fails_at_once_takes_nobodys_turn() -> None:
    async def course(dialling: Dialling) -> None:
        for name in ("bad", *FULL, "waits"):
            dialling.link(name)
        assert dialling.dialled == FULL

    play(course, refused="bad")
