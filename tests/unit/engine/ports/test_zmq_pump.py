"""A round of messages gives the loop back, however slow each of them is."""

from __future__ import annotations

import asyncio

import zmq

from engine.ports.zmq_pump import Parts, SocketPump
from protocol.limits import MESSAGES_TURN_S

MESSAGES = 40
WORK_S = MESSAGES_TURN_S / 2


def test_others_have_their_turn_between_slow_messages() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        sender, receiver = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        receiver.bind("inproc://slow")
        sender.connect("inproc://slow")
        for _ in range(MESSAGES):
            sender.send(b"slow")
        handled, others = 0, 0
        done = asyncio.Event()

        def on_message(parts: Parts) -> None:
            nonlocal handled
            handled += 1
            until_s = loop.time() + WORK_S
            while loop.time() < until_s:
                pass
            if handled == MESSAGES:
                done.set()

        def other() -> None:
            nonlocal others
            others += 1
            if not done.is_set():
                loop.call_soon(other)

        pump = SocketPump(loop, receiver, on_message)
        loop.call_soon(other)
        await asyncio.wait_for(done.wait(), 30)
        assert others >= MESSAGES // 4
        pump.close()
        sender.close(0)
        context.term()

    asyncio.run(play())
