"""What all hosts together may take of the daemon: receive buffers, replies untaken, turns, lines in the log.

Nobody waits for what another holds. When buffers run short, everybody's requests are handled in smaller
pieces; when replies pile up, everybody's next ones are made in smaller pieces: a host that stalls makes the
others a little slower, and never stops them. The bounds are in protocol/limits.py.

Buffers are mappings of their own: what is given back goes back to the system, whatever the allocator does.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from weakref import WeakValueDictionary

from protocol.limits import (
    NBD_RECEIVE_BUFFER_BYTES,
    NBD_RECEIVE_BUFFERS_BYTES_MAX,
    NBD_RECEIVE_BUFFERS_KEPT_BYTES,
    NBD_TURN_BLOCKS,
    NBD_TURN_BLOCKS_MIN,
    NBD_UNSENT_BYTES_MAX,
)
from site_primary.hosted import Hosted
from site_primary.nbd.gathering import Gathering
from site_primary.nbd.log_budget import LogBudget


class HostBudget:
    """One for all connections of a site. `call_soon` runs a callback once everything that is ready now has
    run, `call_later` after so many seconds.

    `tight` and `turn_blocks` are plain attributes: each wake-up of each connection reads them.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.log = LogBudget(call_later)
        self.lent_bytes = 0
        self.tight = False  # receive buffers run short
        self.unsent_bytes = 0
        self.turn_blocks = NBD_TURN_BLOCKS
        self._kept: dict[int, list[memoryview]] = {}
        self._kept_bytes = 0
        self._wire: memoryview | None = None
        self._call_soon = call_soon
        self._turns: deque[Callable[[], None]] = deque()
        # By the group's id(), which is its own for as long as the value, which holds it, is there.
        self._gatherings: WeakValueDictionary[int, Gathering] = WeakValueDictionary()

    # -- receive buffers

    def lend(self, size: int) -> memoryview:
        """A buffer of `size` bytes, with whatever in it. Never refused: see `tight`."""
        kept = self._kept.get(size)
        if kept:
            buffer = kept.pop()
            self._kept_bytes -= size
        else:
            buffer = memoryview(mmap.mmap(-1, size))
        self.lent_bytes += size
        self.tight = self.lent_bytes >= NBD_RECEIVE_BUFFERS_BYTES_MAX
        return buffer

    def give_back(self, buffer: memoryview) -> None:
        """A buffer that was lent. Nobody holds a slice of it any more."""
        size = len(buffer)
        self.lent_bytes -= size
        self.tight = self.lent_bytes >= NBD_RECEIVE_BUFFERS_BYTES_MAX
        if self._kept_bytes + size <= NBD_RECEIVE_BUFFERS_KEPT_BYTES:
            self._kept_bytes += size
            self._kept.setdefault(size, []).append(buffer)

    def add_held(self, change: int) -> None:
        """So many more bytes that came are kept elsewhere until they can be handled; negative: fewer."""
        self.lent_bytes += change
        self.tight = self.lent_bytes >= NBD_RECEIVE_BUFFERS_BYTES_MAX

    def wire(self) -> memoryview:
        """Where bytes come to that are decrypted before the loop goes on: one buffer for all connections."""
        if self._wire is None:
            self._wire = memoryview(bytearray(NBD_RECEIVE_BUFFER_BYTES))
        return self._wire

    # -- replies

    def add_unsent(self, change: int) -> None:
        """So many more bytes of replies wait for hosts that do not take them; negative: fewer."""
        self.unsent_bytes += change
        crowded = self.unsent_bytes >= NBD_UNSENT_BYTES_MAX
        self.turn_blocks = NBD_TURN_BLOCKS_MIN if crowded else NBD_TURN_BLOCKS

    # -- frames

    def gathering(self, group: Hosted) -> Gathering:
        """Where all hosts of a group come together, for as long as one of them holds it."""
        found = self._gatherings.get(id(group))
        if found is None:
            found = self._gatherings[id(group)] = Gathering(group, self._call_soon)
        return found

    # -- turns

    def ask_turn(self, callback: Callable[[], None]) -> None:
        """Run `callback` when it is its turn: one in a round of the loop, in the order in which they were
        asked for. Whoever has little to do is answered between two of them."""
        self._turns.append(callback)
        if len(self._turns) == 1:
            self._call_soon(self._take_turn)

    def _take_turn(self) -> None:
        callback = self._turns[0]
        try:
            callback()
        finally:
            self._turns.popleft()
            if self._turns:
                self._call_soon(self._take_turn)
