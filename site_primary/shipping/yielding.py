"""Whether a site that writes gives way to a peer that says that it writes by a newer authority.

    handed over, or `resync --source remote`   at once: this site's operator gave the authority
    the peer follows this site                 no: it answered as a secondary within the heartbeat's time-out
    silence, a split, a start                  yes, unless site.toml says `yields_to_takeover = false`: a
                                               takeover may have happened while nobody could say so

A takeover asks the site that writes first, and is refused while that answers: a peer that follows and takes
over at the same time is none that its operator moved. If its operator did, against an answer that got lost,
it falls silent as a secondary, and is heeded once the time-out is over.
"""

from __future__ import annotations

from engine.group.group import Group
from protocol.errors import NotAllowed
from protocol.limits import HEARTBEAT_TIMEOUT_S
from site_primary.shipping.comparison import Choice
from site_primary.shipping.shipper import Shipper


def given_away(group: Group, shipper: Shipper | None) -> bool:
    """Whether this site's operator said that the peer is to write. `shipper`: the group's, if there is
    one."""
    by_resync = shipper is not None and shipper.hosts.choice is Choice.REMOTE
    return by_resync or group.handed_to not in ("", group.site)


def check_yield(group: Group, shipper: Shipper | None, by: str, *, to_takeover: bool) -> None:
    """NotAllowed unless this site is to give way to `by`. `shipper`: the group's, if there is one;
    `to_takeover`: whether silence is enough."""
    if shipper is None or given_away(group, shipper):
        return
    heard = shipper.followed_at
    ago_s = None if heard is None else group.clock.monotonic() - heard
    if ago_s is not None and ago_s <= HEARTBEAT_TIMEOUT_S:
        why = f"it followed this site {ago_s:.1f} s ago"
        then = f"`farshore pair show {group.name} --site {by}`: if nobody took over there, who has its key?"
    elif not to_takeover:
        why = "this site yields to no takeover (yields_to_takeover in site.toml)"
        then = f"`farshore pair resync {group.name} --source remote` here, if {by} is to write"
    else:
        return
    raise NotAllowed(
        f"{by} claims to write {group.name} by a newer authority, and {why}",
        subject=group.name,
        position=str(group.end),
        next_step=then,
    )
