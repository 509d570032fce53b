"""How long certificates are good, for people. By the site's clock: that of who looks may be another."""

from __future__ import annotations

from console.figures import age_s
from protocol.commands.site import SiteStatusReply
from protocol.commands.site_cert import DAY_S, ENDS_WARNING_DAYS


def certificate_left_days(status: SiteStatusReply) -> float | None:
    """Of the certificate that hosts on TCP see; None: none is in use, or an earlier version does not say."""
    if status.certificate_expires is None:
        return None
    ahead_s = age_s(status.time, status.certificate_expires)
    return None if ahead_s is None else ahead_s / DAY_S


def ending_text(left_days: float) -> str:
    """`this site's certificate ends in 12 days`."""
    if left_days <= 0:
        return "this site's certificate has ended"
    return f"this site's certificate ends in {left_days:.0f} days"


def until_text(moment: str, left_days: float | None) -> str:
    """When one ends, and how soon that is where it is soon."""
    if left_days is None or left_days > ENDS_WARNING_DAYS:
        return moment
    return f"{moment} (ended)" if left_days <= 0 else f"{moment} ({left_days:.0f} days)"
