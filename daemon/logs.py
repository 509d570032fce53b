"""Logs: one JSON object a line on standard output, with the site bound to each.

A host, a peer or a stranger can cause lines: of one kind only so many are written in each span of time, and
the next one after it says how many were left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from structlog.typing import EventDict

from engine.ports.clock import monotonic_s
from protocol.limits import LOG_KINDS_MAX, LOG_LINES_OF_A_KIND_MAX, LOG_LINES_SPAN_S


@dataclass(slots=True)
class _Span:
    """Lines of one kind since a moment (monotonic)."""

    began_s: float
    lines: int = 0
    left_out: int = 0


class LineLimit:
    """A structlog processor; see the module's docstring."""

    def __init__(self, monotonic: Callable[[], float] = monotonic_s) -> None:
        self._monotonic = monotonic
        self._spans: dict[str, _Span] = {}

    def __call__(self, _logger: object, _method: str, event: EventDict) -> EventDict:
        """The line, or structlog.DropEvent."""
        kind, now_s = str(event.get("event")), self._monotonic()
        if kind not in self._spans and len(self._spans) >= LOG_KINDS_MAX:
            kind = ""
        span = self._spans.setdefault(kind, _Span(now_s))
        if now_s - span.began_s >= LOG_LINES_SPAN_S:
            if span.left_out:
                event["left_out"] = span.left_out
            span.began_s, span.lines, span.left_out = now_s, 0, 0
        if span.lines >= LOG_LINES_OF_A_KIND_MAX:
            span.left_out += 1
            raise structlog.DropEvent
        span.lines += 1
        return event


def configure_logs(site: str) -> None:
    """Set up structlog for this process."""

    def bind_site(_logger: object, _method: str, event: EventDict) -> EventDict:
        event.setdefault("site", site)
        return event

    # A processor, not context variables: callbacks from threads run in a context of their own.
    structlog.configure(
        processors=[
            LineLimit(),
            bind_site,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        cache_logger_on_first_use=True,
    )
