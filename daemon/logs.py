"""Logs: one JSON object a line on standard output, with the site bound to each."""

from __future__ import annotations

import structlog
from structlog.typing import EventDict


def configure_logs(site: str) -> None:
    """Set up structlog for this process."""

    def bind_site(_logger: object, _method: str, event: EventDict) -> EventDict:
        event.setdefault("site", site)
        return event

    # A processor, not context variables: callbacks from threads run in a context of their own.
    structlog.configure(
        processors=[
            bind_site,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        cache_logger_on_first_use=True,
    )
