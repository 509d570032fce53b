"""Two daemons with one site's identity: a machine's image that was started twice, say (docs/decisions/0019).

A site closes a group's connection before it makes the next, so a session that was replaced falls silent but
for what was under way. One whose heartbeats go on, a second apart, is kept by another daemon. Then both call
in turn, and each would end the other's session: the one that is in session stays, the other one is refused.

Which of the two should run is for an operator to say. It decides nothing about data.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.group.core import GroupCore
from engine.group.listeners import Emit
from protocol.errors import NotAllowed
from protocol.limits import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S

# What was under way when a connection was closed may still come, and all at once: beats that are so far apart
# are sent by somebody.
BEATS = 3
APART_S = 0.7 * HEARTBEAT_INTERVAL_S
# A session that was heard so lately is alive.
ALIVE_S = HEARTBEAT_TIMEOUT_S / 2
KEPT_S = 5 * HEARTBEAT_TIMEOUT_S
REPLACED_MAX = 4096


@dataclass(slots=True)
class _Replaced:
    """A session that another one ended: of which group, when (monotonic), how often it was heard since."""

    group: GroupCore
    at: float
    beats: int = 0


class Twins:
    """Of all peers."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._present: dict[tuple[str, str], int] = {}  # sessions, by peer and group
        self._until: dict[tuple[str, str], float] = {}  # two daemons are known to call, up to then
        self._replaced: dict[tuple[str, int], _Replaced] = {}  # by peer and session

    def check(self, peer: str, group: GroupCore, session: int, heard_at: float | None) -> None:
        """Whether a HELLO may end the session in force, which was heard last at `heard_at` (monotonic).
        NotAllowed."""
        key, now = (peer, group.name), group.clock.monotonic()
        alive = heard_at is not None and now - heard_at < ALIVE_S
        if session != self._present.get(key) and alive and now < self._until.get(key, now):
            self._until[key] = now + KEPT_S
            raise _refusal(peer, group)

    def began(self, peer: str, group: GroupCore, session: int) -> None:
        """That session is in force."""
        before = self._present.get((peer, group.name), session)
        self._present[peer, group.name] = session
        if before != session:
            self._replaced[peer, before] = _Replaced(group, group.clock.monotonic())
            if len(self._replaced) > REPLACED_MAX:
                del self._replaced[next(iter(self._replaced))]
        self._replaced.pop((peer, session), None)

    def late(self, peer: str, session: int) -> NotAllowed | None:
        """A heartbeat of a session that is not in force; what to refuse it with, if another daemon's."""
        found = self._replaced.get((peer, session))
        if found is None:
            return None
        group, now = found.group, found.group.clock.monotonic()
        if now - found.at < APART_S:
            return None
        found.at, found.beats = now, found.beats + 1
        if found.beats < BEATS:
            return None
        del self._replaced[peer, session]
        self._until[peer, group.name] = now + KEPT_S
        present = self._present[peer, group.name]
        self._emit(
            "peer.two_daemons",
            object=peer,
            group=group.name,
            error=f"session {session:x} goes on beside session {present:x}, both with the key of {peer}: two "
            "daemons run with its identity",
            next=f"stop the one that should not run; `farshore pair show {group.name}` there says which is "
            "refused",
        )
        return _refusal(peer, group)


def _refusal(peer: str, group: GroupCore) -> NotAllowed:
    return NotAllowed(
        f"another daemon with the identity of {peer} is in session: was its directory or its machine copied?",
        subject=group.name,
        next_step="stop the one of the two that should not run",
    )
