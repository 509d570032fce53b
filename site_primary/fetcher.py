"""Taking a peer's journal in: what was lost here, or the history that an operator chose.

The secondary is asked for frames from a cut on, a message at a time, and each frame is checked and stored as
a follower would. Meanwhile nothing is written here (`site_primary.host_wait`).
"""

from __future__ import annotations

from collections.abc import Callable

from engine.group import Group
from engine.head_moves import NotContiguous
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.frames import FrameError, frames_in
from protocol.messages import Fetch, Fetched
from protocol.positions import Cut


class Fetcher:
    """`send` takes a header. Inactive until `begin`; then `on_done` or `on_failed` is called once, unless the
    session ends before."""

    def __init__(
        self,
        group: Group,
        peer: str,
        send: Callable[[bytes], None],
        *,
        on_done: Callable[[], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self.active = False
        self._group = group
        self._peer = peer
        self._send = send
        self._on_done = on_done
        self._on_failed = on_failed
        self._session = 0
        self._leave = False

    def begin(self, session: int, cut: Cut, *, leave: bool) -> None:
        """Ask for everything after `cut`; with `leave`, what this site has past it becomes a branch."""
        self.active = True
        self._session = session
        self._leave = leave
        self._ask(cut)

    def _ask(self, cut: Cut) -> None:
        self._send(Fetch(session=self._session, timeline=cut.timeline, position=cut.position).encode())

    def take(self, fetched: Fetched, payload: bytes) -> None:
        """Store the frames of one answer, and ask on."""
        if not self.active:
            return
        try:
            self._store(payload)
        except (NotContiguous, FrameError, RemoteProtocolError, FarshoreError, OSError) as error:
            self._on_failed(f"what {self._peer} holds cannot be taken in: {error}")
            return
        if not fetched.done:
            self._ask(self._group.end)
            return
        self.active = False
        group = self._group
        group.emit("pair.fetched", group=group.name, peer=self._peer, position=str(group.end))
        self._on_done()

    def _store(self, payload: bytes) -> None:
        for frame in frames_in(payload):
            self._group.follow(frame.prefix, frame.raw, leave=self._leave, history=True)

    def stop(self) -> None:
        """Ask no more. What was taken in stays."""
        self.active = False
