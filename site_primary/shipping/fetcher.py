"""Taking a peer's journal in: what was lost here, or the history that an operator chose.

The secondary is asked for frames from a cut on, a message at a time, and each frame is checked and stored as
a follower would. Meanwhile nothing is written here (`host_wait`), so a peer must not be able to
draw it out: an answer without frames is the last one or none, and one that does not come, whatever else the
peer says in between, ends the session.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.group.group import Group
from engine.group.head import NotContiguous
from engine.ports.clock import Timer
from engine.ports.disk import Buffer
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.frames import FrameError, frames_in
from protocol.limits import HEARTBEAT_TIMEOUT_S
from protocol.messages import Fetch, Fetched
from protocol.positions import Cut
from site_primary.shipping.session import Session

# Some round of a peer that a hundred groups ask at once, each in its turn. A link that is silent is given up
# sooner.
ANSWER_TIMEOUT_S = 5 * HEARTBEAT_TIMEOUT_S


class Fetcher:
    """`session` carries the questions. After `begin`, `on_done` or `on_failed` is called once, unless the
    session ends before."""

    def __init__(
        self,
        group: Group,
        session: Session,
        *,
        on_done: Callable[[], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self._group = group
        self._session = session
        self._on_done = on_done
        self._on_failed = on_failed
        self._leave = False
        self._timer: Timer | None = None

    def begin(self, cut: Cut, *, leave: bool) -> None:
        """Ask for everything after `cut`; with `leave`, what this site has past it becomes a branch."""
        self._leave = leave
        self._ask(cut)

    def _ask(self, cut: Cut) -> None:
        self._timer = self._group.clock.call_later(ANSWER_TIMEOUT_S, self._on_silence)
        fetch = Fetch(session=self._session.id, timeline=cut.timeline, position=cut.position)
        self._session.send(fetch.encode())

    def _on_silence(self) -> None:
        self._timer = None
        self._on_failed(f"{self._session.peer} was asked for what it holds, and does not answer")

    def take(self, fetched: Fetched, payload: Buffer) -> None:
        """Store the frames of one answer, and ask on."""
        self.stop()
        try:
            frames = self._store(payload)
            if not frames and not fetched.done:
                raise RemoteProtocolError("an answer without a frame says that there are more")
        except (NotContiguous, FrameError, RemoteProtocolError, FarshoreError, OSError) as error:
            self._on_failed(f"what {self._session.peer} holds cannot be taken in: {error}")
            return
        if not fetched.done:
            self._ask(self._group.end)
            return
        group = self._group
        group.emit("pair.fetched", group=group.name, peer=self._session.peer, position=str(group.end))
        self._on_done()

    def _store(self, payload: Buffer) -> int:
        """The number of frames."""
        count = 0
        for frame in frames_in(payload):
            self._group.follow(frame.prefix, frame.raw, leave=self._leave, history=True)
            count += 1
        return count

    def stop(self) -> None:
        """Ask no more. What was taken in stays."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
