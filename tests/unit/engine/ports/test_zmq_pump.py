"""A round of messages gives the loop back, however slow each of them is; and none is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from engine.ports.zmq_pump import Parts, SocketPump
from protocol.limits import MESSAGES_TURN_S

MESSAGES = 40
WORK_S = MESSAGES_TURN_S / 2
PATIENCE_S = 30


@contextmanager
def two_ends() -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """Two sockets that are connected; whoever pumps the second closes it."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sender, receiver = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    receiver.bind("inproc://ends")
    sender.connect("inproc://ends")
    try:
        yield sender, receiver
    finally:
        receiver.close(0)
        sender.close(0)
        context.term()


def test_others_have_their_turn_between_slow_messages() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        with two_ends() as (sender, receiver):
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
            await asyncio.wait_for(done.wait(), PATIENCE_S)
            assert others >= MESSAGES // 4
            pump.close()

    asyncio.run(play())


def test_a_send_that_takes_in_the_wake_up_makes_another() -> None:
    """The descriptor says nothing any more then, and the message would wait for the next change."""

    async def play() -> None:
        with two_ends() as (sender, receiver):
            came = asyncio.Event()
            pump = SocketPump(asyncio.get_running_loop(), receiver, lambda _: came.set())
            await asyncio.sleep(0.05)
            sender.send(b"x")
            receiver.get(zmq.EVENTS)  # as any call on the socket may
            pump.sent()
            await asyncio.wait_for(came.wait(), PATIENCE_S)
            pump.close()

    asyncio.run(play())


def test_a_send_makes_no_turn_where_nothing_came() -> None:
    async def play() -> None:
        with two_ends() as (_, receiver):
            turns = 0

            def on_turn() -> None:
                nonlocal turns
                turns += 1

            pump = SocketPump(asyncio.get_running_loop(), receiver, lambda _: None, on_turn)
            await asyncio.sleep(0.05)
            before = turns
            for _ in range(10):
                receiver.send(b"x")
                pump.sent()
                await asyncio.sleep(0)
            assert turns == before
            pump.unsent = True
            pump.sent()
            await asyncio.sleep(0.05)
            assert turns == before + 1
            pump.close()

    asyncio.run(play())
