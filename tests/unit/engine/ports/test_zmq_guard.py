"""How many connections one key may have: the oldest goes."""

from __future__ import annotations

import asyncio

import zmq

from engine.ports.zmq_guard import StrangerGuard
from engine.ports.zmq_pump import Parts, SocketPump

MOST = 3
CONNECTIONS = 8


def test_the_oldest_of_too_many_connections_of_a_key_is_shut_down() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        server = context.socket(zmq.ROUTER)
        guard = StrangerGuard(loop, server, most_of_a_key=MOST)
        server.bind("tcp://127.0.0.1:*")
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        def on_message(parts: Parts) -> None:
            key = "other" if parts[1].bytes == b"other" else "key"
            guard.proven(parts[1], key)
            heard.put_nowait(parts[0].bytes)

        pump = SocketPump(loop, server, on_message)
        callers = []

        async def call(word: bytes) -> bytes:
            dealer = context.socket(zmq.DEALER)
            dealer.reconnect_ivl = -1
            dealer.connect(bytes(server.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode())
            callers.append(dealer)
            dealer.send(word)
            return await asyncio.wait_for(heard.get(), 10)

        await call(b"other")
        for _ in range(CONNECTIONS):
            await call(b"key")
        assert (guard.count_of("key"), guard.count_of("other"), guard.count) == (MOST, 1, 0)

        for dealer in (callers[0], *callers[-MOST:]):
            dealer.send(b"other" if dealer is callers[0] else b"key")
            await asyncio.wait_for(heard.get(), 10)
        lost = callers[1]
        async with asyncio.timeout(10):
            while lost.poll(0, zmq.POLLOUT):  # noqa: ASYNC110 - no event of ours tells of it
                await asyncio.sleep(0.01)
        guard.close()
        pump.close()
        for dealer in callers:
            dealer.close(0)
        context.term()

    asyncio.run(play())
