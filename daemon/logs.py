"""Logs: one JSON object a line on standard output, with the site bound to each."""

from __future__ import annotations

import structlog


def configure_logs(site: str) -> None:
    """Set up structlog for this process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(site=site)
