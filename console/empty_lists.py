"""What a list says that has no rows: that there is nothing, or that it could not look everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from console.session import Session
from protocol.commands.site import SiteStatus


def nothing(session: Session, rows: Sequence[object], empty: str) -> str:
    """`empty`, but where groups cannot be opened whose rows it might have had. Nothing where there are
    some: then the site is not asked."""
    if rows:
        return ""
    damaged = [row.group for row in session.call(SiteStatus()).groups if row.state == "damaged"]
    if not damaged:
        return empty
    return f"nothing of the groups that are open; not of {', '.join(damaged)}: `farshore status` says why"
