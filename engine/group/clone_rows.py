"""What a site remembers of its clones, in its state.

clones    name    row (group, timeline, position, timelines, volumes, UTC ns, temporary, purpose)
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.group.site_state import SiteState
from protocol.bounds import Name, Position, Text, TimelineId, UtcNs, VolumeId
from protocol.positions import Cut
from protocol.rows import pack_row
from protocol.wire import RowType

TABLE = "clones"
ROW = RowType(
    tuple[Name, TimelineId, Position, tuple[TimelineId, ...], tuple[VolumeId, ...], UtcNs, bool, Text]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneRow:
    """A clone (engine.group.clones): the cut of the group that it left, its own timelines in order, the ids
    of its volumes. A `temporary` one goes with the daemon; `purpose` is a word for people."""

    name: str
    group: str
    cut: Cut
    timelines: tuple[int, ...]
    volumes: tuple[int, ...]
    created_utc_ns: int
    temporary: bool
    purpose: str


def clone_rows(state: SiteState, group: str) -> list[CloneRow]:
    """A group's clones, by name."""
    found = [_from_value(key.decode(), value) for key, value in sorted(state.notes(TABLE).items())]
    return [row for row in found if row.group == group]


def clone_row(state: SiteState, name: str) -> CloneRow | None:
    """That of the clone of a name, also of a group that is not open."""
    key = name.encode()
    value = state.notes(TABLE, key).get(key)
    return None if value is None else _from_value(name, value)


def put_clone(state: SiteState, row: CloneRow) -> None:
    """Add or replace a clone. Durable on return."""
    created = (row.created_utc_ns, row.temporary, row.purpose)
    value = (row.group, row.cut.timeline, row.cut.position, row.timelines, row.volumes, *created)
    state.put_notes(TABLE, {row.name.encode(): pack_row(value)})


def remove_clone(state: SiteState, name: str) -> None:
    """Forget a clone; one that is not there is fine."""
    state.remove_notes(TABLE, [name.encode()])


def _from_value(name: str, value: bytes) -> CloneRow:
    group, timeline, position, timelines, volumes, created, temporary, purpose = ROW.decode(value)
    return CloneRow(
        name=name,
        group=group,
        cut=Cut(timeline, position),
        timelines=timelines,
        volumes=volumes,
        created_utc_ns=created,
        temporary=temporary,
        purpose=purpose,
    )
