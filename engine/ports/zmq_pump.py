"""One ZeroMQ socket on an asyncio loop, without zmq.asyncio: no future and no task for a message.

The descriptor of a ZeroMQ socket is that of its mailbox. It turns readable when something changed, not while
messages wait, and any call on the socket (a send too) may take the change in. Hence the rules: after a
wake-up receive until the socket says that nothing is left (ZMQ_EVENTS works off its mailbox, and so does a
receive that meets EAGAIN); after the last send ask it once more; when stopping early, come back by oneself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from protocol.limits import MESSAGES_TURN_S

# Hosts wait in the same loop: a burst of messages must not hold it for long, nor must slow ones.
MESSAGES_PER_WAKE_MAX = 256
# No message of ours has more; what a hostile peer adds is read and forgotten.
PARTS_MAX = 8

Parts = list[zmq.Frame]

# A plain number: combining or converting flags costs more than the call that takes them.
_NOBLOCK = int(zmq.NOBLOCK)
_POLLIN, _POLLOUT = int(zmq.POLLIN), int(zmq.POLLOUT)
_EVENTS = zmq.EVENTS


class SocketPump:
    """Receives for `socket`, which it owns, and hands every message to `on_message` as its parts.

    `on_turn` runs after each round of receiving: the place to send what had to wait. Who meets EAGAIN says so
    (`unsent`), and gets another turn once the socket takes messages again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        on_message: Callable[[Parts], None],
        on_turn: Callable[[], None] | None = None,
    ) -> None:
        self.socket = socket
        self.closed = False
        self.unsent = False
        self._turning = False
        self._loop = loop
        self._on_message = on_message
        self._on_turn = on_turn
        self._poked: asyncio.Handle | None = None
        self._descriptor = socket.fileno()
        loop.add_reader(self._descriptor, self.turn)
        self.poke()

    def poke(self) -> None:
        """Have a turn in the loop's next round. Many calls make one."""
        if self._poked is None and not self.closed:
            self._poked = self._loop.call_soon(self.turn)

    def sent(self) -> None:
        """To be called after a send: it may have taken in what says that messages came."""
        if not self._turning and not self.closed and self._events() & self._awaited:
            self.poke()

    def _events(self) -> int:
        return int(self.socket.get(_EVENTS))

    @property
    def _awaited(self) -> int:
        return _POLLIN | _POLLOUT if self.unsent else _POLLIN

    def turn(self) -> None:
        """Receive what is there, up to a bound."""
        if self._poked is not None:
            self._poked.cancel()
            self._poked = None
        self._turning = True
        try:
            drained = self._receive_batch()
            self.unsent = False
            if not self.closed and self._on_turn is not None:
                self._on_turn()
        except BaseException:
            # A defect in a callback goes to the loop's handler; the messages behind it must not wait for
            # the next change of the socket, which may never come.
            self.poke()
            raise
        finally:
            self._turning = False
        if drained:
            self.sent()
        else:
            self.poke()

    def close(self) -> None:
        """Close the socket and drop what it holds; twice is fine."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._descriptor)
        if self._poked is not None:
            self._poked.cancel()
            self._poked = None
        self.socket.close(0)

    def _receive_batch(self) -> bool:
        """False if messages may be left."""
        end_s = self._loop.time() + MESSAGES_TURN_S
        for _ in range(MESSAGES_PER_WAKE_MAX):
            if self.closed:
                return True
            try:
                frame = self.socket.recv(_NOBLOCK, copy=False)
            except zmq.Again:
                return True
            parts = [frame]
            while frame.more:
                frame = self.socket.recv(_NOBLOCK, copy=False)
                if len(parts) <= PARTS_MAX:
                    parts.append(frame)
            if len(parts) <= PARTS_MAX:
                self._on_message(parts)
            if self.closed or not self._events() & _POLLIN:
                return True
            if self._loop.time() >= end_s:
                break
        return False
