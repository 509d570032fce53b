"""How fast a peer is sent to, for people."""

from __future__ import annotations

from datetime import tzinfo

from console.figures import moment_of, rate_text
from protocol.commands.peer import PeerInfo, RateWindowInfo


def window_text(window: RateWindowInfo) -> str:
    """`08:00-18:00 Europe/Berlin: 20.0 MiB/s`."""
    rate = rate_text(window.rate_bytes_s) if window.rate_bytes_s else "no limit"
    return f"{window.between} {window.zone}: {rate}"


def rate_now_text(peer: PeerInfo, zone: tzinfo) -> str:
    """The rate, and until when if it is one by the time of day: `20.0 MiB/s until 18:00`."""
    if not peer.windows:
        return rate_text(peer.rate_bytes_s)
    rate = rate_text(peer.rate_now_bytes_s) if peer.rate_now_bytes_s else "no limit"
    until = moment_of(peer.rate_until)
    return rate if until is None else f"{rate} until {until.astimezone(zone):%H:%M}"
