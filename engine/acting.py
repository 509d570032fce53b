"""Who causes what happens now, for the events that it leaves: an operator by a command, a peer by a message.

    uid:1000        a client of the control socket, by its user
    operator:NAME   one over the network, by its key
    peer:NAME       a message of a peer
    schedule        a policy of a group
    nothing         this site by itself

A callback or task that is begun meanwhile inherits it, and may outlive it by days: what was caused ends with
`acting`, and is not said of anything later.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType

OVER_THE_NETWORK = "operator:"


class acting:
    """What happens within is caused by `by`: in this task or callback, and in those that it begins."""

    __slots__ = ("_before", "_by", "_over")

    def __init__(self, by: str) -> None:
        self._by = by
        self._over = False

    def __enter__(self) -> None:
        self._before = _ACTING.set(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        _ACTING.reset(self._before)

    @property
    def by(self) -> str:
        """Who it is; nobody any more once it is over."""
        return "" if self._over else self._by


_ACTING: ContextVar[acting | None] = ContextVar("acting", default=None)


def actor() -> str:
    """Who causes what happens now; nothing if it is this site by itself."""
    found = _ACTING.get()
    return found.by if found is not None else ""
