"""Logs: one JSON object a line on standard output, with the site bound to each.

A host, a peer or a stranger can cause lines: of one kind only so many are written in each span of time, and
the next one after it says how many were left out. Nobody waits for whoever reads them (`daemon.log_writer`).
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog
from structlog.typing import EventDict

from daemon.log_writer import LogStream, LogWriter, keep_from_blocking, relay
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


STAMP = structlog.processors.TimeStamper(fmt="iso", utc=True)


def configure_logs(site: str) -> Callable[[], int]:
    """Set up structlog and both standard streams for this process; gives how many lines are missing since."""

    def bind_site(_logger: object, _method: str, event: EventDict) -> EventDict:
        event.setdefault("site", site)
        return event

    def lost_line(count: int) -> bytes:
        said = {"event": "log.dropped", "lines": count, "site": site, "level": "warning"}
        return msgspec.json.encode(STAMP(None, "", said)) + b"\n"

    dropped = _queue_standard_streams(lost_line)
    # A processor, not context variables: callbacks from threads run in a context of their own.
    structlog.configure(
        processors=[
            LineLimit(),
            bind_site,
            structlog.processors.add_log_level,
            STAMP,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    return dropped


def _queue_standard_streams(lost_line: Callable[[int], bytes]) -> Callable[[], int]:
    """What is printed, warned of or left as a traceback goes by a queue, and so does what a child writes to
    the sys.stderr that it is given. Gives how many lines were dropped."""
    out = LogWriter(os.dup(1), lost_line)
    error = LogWriter(os.dup(2), lambda count: b"(%d lines are missing here)\n" % count)
    for descriptor in (1, 2):
        keep_from_blocking(descriptor)
    sys.stdout, sys.stderr = LogStream(out), LogStream(error, relay(error))
    for writer in (error, out):
        atexit.register(writer.close)
    return lambda: out.dropped + error.dropped
