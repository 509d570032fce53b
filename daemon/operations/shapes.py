"""Engine objects as what replies hold (protocol/commands)."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from daemon.site import Site
from engine.group.group import Group
from engine.history.cuts import resolve_cut
from protocol.commands.base import Reply
from protocol.commands.cut import CutInfo
from protocol.cut_text import NamedCut, time_text
from protocol.errors import WrongState
from protocol.positions import Cut, timeline_text

Extended = TypeVar("Extended", bound=Reply)


def cut_info(cut: Cut, utc_ns: int | None = None) -> CutInfo:
    """A cut, and the time of the last frame before it if that is known."""
    return CutInfo(
        timeline=timeline_text(cut.timeline),
        position=cut.position,
        text=str(cut),
        time=time_or_none(utc_ns),
    )


def time_or_none(utc_ns: int | None) -> str | None:
    """A time as replies have it; none if it is not known, or 0."""
    return time_text(utc_ns) if utc_ns else None


def minute_text(minute: int) -> str:
    """A minute of the day as a clock shows it: `HH:MM`."""
    return f"{minute // 60:02d}:{minute % 60:02d}"


def extended(kind: type[Extended], reply: Reply, **more: object) -> Extended:
    """The same reply with the fields that its extension adds."""
    return kind(**msgspec.structs.asdict(reply), **more)


def time_of(group: Group, cut: Cut) -> int | None:
    """UTC nanoseconds of the last frame before a cut."""
    if cut == group.end:
        return group.head.utc_ns
    before = group.reader.ending_at(cut.timeline, cut.position)
    return before.utc_ns if before else None


def resolve(site: Site, group: Group, named: NamedCut) -> Cut:
    """What a named cut stands for at this site now."""
    role = site.state.group(group.name).role
    return resolve_cut(group, named, role=role, complete_until_ns=site.complete_until_ns(group.name))


def writable_group(site: Site, name: str) -> Group:
    """A group that this site writes. NotFound; WrongState, naming the primary."""
    group = site.group(name)
    require_primary(site, group)
    return group


def require_primary(site: Site, group: Group) -> None:
    """WrongState, naming the primary, unless this site writes the group."""
    if not group.writes:
        peer = site.peer_of(group.name)
        raise WrongState(
            f"group {group.name} is written at {peer}, not here",
            subject=group.name,
            position=str(group.end),
            next_step=f"run the command at {peer}: --site {peer}",
        )
