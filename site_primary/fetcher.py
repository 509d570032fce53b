"""Taking a peer's journal in: what was lost here, or the history that an operator chose.

The secondary is asked for frames from a cut on, a message at a time, and each frame is checked and stored as
a follower would. Meanwhile nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.group import Group
from protocol.frames import parse_prefix
from protocol.messages import Fetch, Fetched
from protocol.positions import Cut


class Fetcher:
    """`send` takes a header. Inactive until `begin`."""

    def __init__(self, group: Group, peer: str, send: Callable[[bytes], None]) -> None:
        self.active = False
        self.fetched_bytes = 0
        self._group = group
        self._peer = peer
        self._send = send
        self._session = 0
        self._leave = False

    def begin(self, session: int, cut: Cut, *, leave: bool) -> None:
        """Ask for everything after `cut`; with `leave`, what this site has past it becomes a branch."""
        self.active = True
        self._session = session
        self._leave = leave
        self._group.held_back = f"takes in what {self._peer} holds"
        self._ask(cut)

    def _ask(self, cut: Cut) -> None:
        self._send(Fetch(session=self._session, timeline=cut.timeline, position=cut.position).encode())

    def take(self, fetched: Fetched, payload: bytes) -> bool:
        """Store the frames of one answer and ask on; True once that was all. NotContiguous, FrameError,
        FarshoreError or OSError: some of them could not be taken."""
        view = memoryview(payload)
        at = 0
        while at < len(view):
            prefix = parse_prefix(view, at)
            self._group.follow(prefix, view[at : at + prefix.frame_bytes], leave=self._leave)
            at += prefix.frame_bytes
        self.fetched_bytes += len(view)
        if fetched.done:
            self.end()
            return True
        self._ask(self._group.end)
        return False

    def interrupt(self) -> None:
        """The session is over. What was taken in stays, and nothing is written until the rest is here."""
        self.active = False

    def end(self) -> None:
        """Writing may go on."""
        self.active = False
        self._group.held_back = ""
