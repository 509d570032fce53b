"""What a group says of itself to a peer that it is shipped to."""

from __future__ import annotations

from engine.group.group import Group
from engine.history.lineage import lineage_rows
from engine.peering.pair_states import Mode, PairState
from protocol.messages import Heartbeat, Hello


def hello_of(group: Group, session: int, group_id: str, *, adopt: bool) -> Hello:
    """Who ships what, up to where."""
    return Hello(
        session=session,
        group=group.name,
        group_id=group_id,
        site=group.site,
        lineage=lineage_rows(group),
        written=group.writer.written,
        adopt=adopt,
    )


def writes_here(group: Group) -> bool:
    """Whether the frames that follow here are this site's own."""
    return group.state.group(group.name).role.writes


def heartbeat_of(group: Group, session: int, state: PairState, mode: Mode) -> Heartbeat:
    """Where the journal ends now, with the promise that every later frame says a later time. A site that
    ships on what it follows knows that only of what is before its newest frame."""
    floor = group.kept.floor()
    promise_ns = group.promise_utc_ns() if writes_here(group) else max(0, group.head.utc_ns - 1)
    return Heartbeat(
        session=session,
        timeline=group.head.timeline,
        written=group.writer.written,
        utc_ns=promise_ns,
        state=state.value,
        mode=mode.value,
        floor=floor.position if floor else 0,
    )
