"""Lines in the log about what hosts do: the first of a kind as they are, the rest as a count.

Anybody who can connect can do so a thousand times a second. The log must still say what happened, and leave
room for what matters more.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from engine.repeats import Repeats
from protocol.limits import NBD_LOG_LINES_MAX, NBD_LOG_PERIOD_S

log = structlog.get_logger()


class LogBudget:
    """Of each kind of line `NBD_LOG_LINES_MAX` in `NBD_LOG_PERIOD_S`; at the period's end one more says how
    many were left out."""

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._kinds: Repeats[str] = Repeats(
            call_later, most=NBD_LOG_LINES_MAX, span_s=NBD_LOG_PERIOD_S, on_left_out=_not_logged
        )

    def info(self, kind: str, **fields: object) -> None:
        """A line at level info."""
        if self.may_say(kind):
            log.info(kind, **fields)

    def warning(self, kind: str, **fields: object) -> None:
        """A line at level warning."""
        if self.may_say(kind):
            log.warning(kind, **fields)

    def may_say(self, kind: str) -> bool:
        """Count a line, and say whether it fits; for who has a logger of its own."""
        return self._kinds.fits(kind)


def _not_logged(kind: str, times: int) -> None:
    log.warning("nbd.not_logged", of=kind, times=times, in_s=NBD_LOG_PERIOD_S)
