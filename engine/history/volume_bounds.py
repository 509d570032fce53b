"""How many volumes a group has, by what its peer says of it: as many as a command here could have made.

Each volume that ever was is looked at whenever those of a cut are listed: by `status`, by NBD's LIST, by
every connection of a host. So those that live are bounded on each lineage, as at the writer
(`VOLUMES_PER_GROUP_MAX`), and all that were made, on any timeline, deleted since or not, in all
(`VOLUMES_EVER_MAX`). Of a base only the latter is asked: which of its volumes live depends on timelines that
are not here yet.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.history.timelines import TimelineTable
from engine.history.volumes import VolumeHistory
from protocol.base_messages import RecordRow
from protocol.errors import RemoteProtocolError
from protocol.events import EventKind, Record, TimelineBegan, VolumeCreated, VolumeRenamed, VolumeResized
from protocol.frames import FramePrefix
from protocol.limits import VOLUME_CHANGES_MAX, VOLUMES_EVER_MAX, VOLUMES_PER_GROUP_MAX


def check_frame_volumes(
    volumes: VolumeHistory, timelines: TimelineTable, prefix: FramePrefix, records: Iterable[Record]
) -> None:
    """RemoteProtocolError if a frame with these records makes more volumes than a group may have."""
    timeline, end, created, changed = prefix.timeline, prefix.position, 0, 0
    for record in records:
        if isinstance(record, VolumeCreated):
            created += 1
        elif isinstance(record, VolumeResized | VolumeRenamed):
            changed += 1
        elif isinstance(record, TimelineBegan):
            timeline, end = record.parent, record.fork  # what was there before
    if changed:
        _check_changes(volumes.changes + changed)
    if not created or volumes.ever + created <= VOLUMES_PER_GROUP_MAX:
        return
    _check_ever(volumes.ever + created)
    living = len(volumes.at(timelines.lineage(timeline, end))) if timeline in timelines else 0
    if living + created > VOLUMES_PER_GROUP_MAX:
        raise RemoteProtocolError(
            f"a group has at most {VOLUMES_PER_GROUP_MAX} volumes (VOLUMES_PER_GROUP_MAX)"
        )


def check_base_volumes(volumes: VolumeHistory, records: Iterable[RecordRow]) -> None:
    """RemoteProtocolError if a base with these records makes more volumes than a group may come to have."""
    created, changed = set(), set()
    for each in records:
        if each.row[0] == EventKind.VOLUME_CREATED:
            created.add((each.timeline, each.position))
        elif each.row[0] in (EventKind.VOLUME_RESIZED, EventKind.VOLUME_RENAMED):
            changed.add((each.timeline, each.position))
    _check_ever(volumes.ever_with(created))
    _check_changes(volumes.changes_with(changed))


def _check_ever(count: int) -> None:
    if count > VOLUMES_EVER_MAX:
        raise RemoteProtocolError(f"a group has made at most {VOLUMES_EVER_MAX} volumes (VOLUMES_EVER_MAX)")


def _check_changes(count: int) -> None:
    if count > VOLUME_CHANGES_MAX:
        raise RemoteProtocolError(
            f"volumes of a group are resized and renamed at most {VOLUME_CHANGES_MAX} times "
            "(VOLUME_CHANGES_MAX)"
        )
