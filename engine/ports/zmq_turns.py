"""Who may dial: at most so many attempts under way at once with one endpoint, the others wait in order.

The peer shuts down what it takes for a flood of strangers (engine/ports/zmq_guard.py), and every connection
is a stranger to it until its first message was taken. After a restart or a cut a site dials once for each of
its groups within a second: all at once they would shut each other out, again at each retry
(docs/decisions/0016).

Pure: an attempt begins and ends when whoever makes it says so.
"""

from __future__ import annotations

from typing import Protocol

from protocol.limits import DIALS_AT_ONCE_MAX


class Attempt(Protocol):
    """Who wants to dial; told apart by identity."""

    def begin_soon(self) -> None:
        """Its turn has come. Called from within what another one does: it must not act at once."""


class DialTurns:
    """Of one process, by endpoint."""

    def __init__(self, most: int = DIALS_AT_ONCE_MAX) -> None:
        self._most = most
        self._under_way: dict[str, set[Attempt]] = {}
        self._waiting: dict[str, dict[Attempt, None]] = {}  # oldest first

    def take(self, endpoint: str, attempt: Attempt) -> bool:
        """Whether it may begin now. If not it waits, and is told when its turn comes."""
        under_way = self._under_way.setdefault(endpoint, set())
        if len(under_way) < self._most:
            under_way.add(attempt)
            return True
        self._waiting.setdefault(endpoint, {})[attempt] = None
        return False

    def give_back(self, endpoint: str, attempt: Attempt) -> None:
        """It has ended, or need not wait any more; nothing if it neither waits nor has a turn."""
        waiting = self._waiting.get(endpoint, {})
        waiting.pop(attempt, None)
        under_way = self._under_way.get(endpoint, set())
        if attempt in under_way:
            under_way.remove(attempt)
            if waiting:
                following = next(iter(waiting))
                del waiting[following]
                under_way.add(following)
                following.begin_soon()
        if not waiting:
            self._waiting.pop(endpoint, None)
        if not under_way:
            self._under_way.pop(endpoint, None)
