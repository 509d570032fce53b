"""Volumes of a group, as its journal tells them: created, resized and turned back, each at a position.

The history is append-only; what exists at a cut is whatever part of it lies on the cut's lineage. A volume's
id is the position of its `VolumeCreated`, so a name used again is another volume.

Pure: no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import assert_never

from engine.history.known_visibility import KnownVisibility
from engine.history.timelines import Places, Span, holds
from protocol.errors import NotFound, Refused, WrongState
from protocol.events import (
    Revert,
    RewriteBegan,
    RewriteEnded,
    VolumeCreated,
    VolumeDeleted,
    VolumeRecord,
    VolumeRenamed,
    VolumeResized,
)
from protocol.limits import BLOCK_BYTES, VOLUME_CHANGES_MAX, VOLUMES_EVER_MAX, VOLUMES_PER_GROUP_MAX
from protocol.positions import Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume at a cut: `id` (position of its creation on `timeline`), and there its name within the group
    and its size in bytes."""

    id: int
    timeline: int
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertEntry:
    """A `Revert` where it stands in the journal."""

    timeline: int
    position: int
    volume: int
    cut: Cut


class VolumeHistory:
    """Every `VolumeCreated`, `Revert` and `Rewrite…` that this site holds of one group."""

    def __init__(self) -> None:
        self._volumes: dict[tuple[int, int], Volume] = {}  # as they were made
        self._changes: dict[int, dict[tuple[int, int], VolumeResized | VolumeRenamed]] = {}
        self._deletions: dict[int, set[tuple[int, int]]] = {}
        self._reverts: dict[int, dict[tuple[int, int], RevertEntry]] = {}
        self._in_order: dict[int, list[RevertEntry]] = {}  # `_reverts`, by position
        self.known = KnownVisibility()
        self._to_cut: dict[Cut, set[tuple[int, int]]] = {}  # what `_reverts` says, by where it goes back to
        self._rewrites: dict[int, dict[tuple[int, int], RewriteBegan | None]] = {}  # None: it ended there

    @property
    def ever(self) -> int:
        """How many were made, on any timeline."""
        return len(self._volumes)

    def ever_with(self, places: set[tuple[int, int]]) -> int:
        """How many there would be with those made at these (timeline, position)."""
        return len(self._volumes.keys() | places)

    @property
    def changes(self) -> int:
        """How often any was resized or renamed, on any timeline."""
        return sum(map(len, self._changes.values()))

    def changes_with(self, places: set[tuple[int, int]]) -> int:
        """How often it would be with what was said at these (timeline, position)."""
        return len(places.union(*self._changes.values()))

    def require_change(self, group: str) -> None:
        """Refused if nothing in a group (its name) may be resized or renamed any more."""
        if self.changes >= VOLUME_CHANGES_MAX:
            raise Refused(
                f"volumes of {group} have changed {VOLUME_CHANGES_MAX} times, as often as they may",
                subject=group,
                next_step="copy the volume into a new one of another group",
            )

    def require_room(self, living: int, group: str) -> None:
        """Refused if a group (its name) that has so many `living` volumes may not have another."""
        if living >= VOLUMES_PER_GROUP_MAX:
            raise Refused(f"a group has at most {VOLUMES_PER_GROUP_MAX} volumes", subject=group)
        if self.ever >= VOLUMES_EVER_MAX:
            raise Refused(
                f"{group} has had {VOLUMES_EVER_MAX} volumes, as many as a group may",
                subject=group,
                next_step="choose another group",
            )

    def apply(self, timeline: int, position: int, event: VolumeRecord) -> None:
        """Take in whatever it says; the same one again is fine."""
        match event:
            case VolumeCreated():
                self.created(timeline, position, event)
            case VolumeDeleted():
                self.deleted(timeline, position, event)
            case VolumeResized() | VolumeRenamed():
                self.changed(timeline, position, event)
            case Revert():
                self.reverted(timeline, position, event)
            case RewriteBegan() | RewriteEnded():
                self.rewriting(timeline, position, event)
            case _:
                assert_never(event)

    def created(self, timeline: int, position: int, event: VolumeCreated) -> None:
        """Take in a creation; seeing the same one again is fine."""
        volume = Volume(id=position, timeline=timeline, name=event.name, size_bytes=event.size_bytes)
        self._volumes[timeline, position] = volume

    def deleted(self, timeline: int, position: int, event: VolumeDeleted) -> None:
        """Take in a deletion; seeing the same one again is fine."""
        self._deletions.setdefault(event.volume, set()).add((timeline, position))

    def changed(self, timeline: int, position: int, event: VolumeResized | VolumeRenamed) -> None:
        """Take in another size or name; seeing the same one again is fine."""
        self._changes.setdefault(event.volume, {})[timeline, position] = event

    def reverted(self, timeline: int, position: int, event: Revert) -> None:
        """Take in a revert; seeing the same one again is fine."""
        entry = RevertEntry(timeline=timeline, position=position, volume=event.volume, cut=event.cut)
        known = self._reverts.setdefault(event.volume, {})
        if known.get((timeline, position)) != entry:
            in_order = self._in_order.setdefault(event.volume, [])
            if (timeline, position) in known:
                in_order.remove(known[timeline, position])
            insort(in_order, entry, key=attrgetter("position"))
            self.known.reverted(timeline, position)
        known[timeline, position] = entry
        self._to_cut.setdefault(event.cut, set()).add((timeline, position))

    def rewriting(self, timeline: int, position: int, event: RewriteBegan | RewriteEnded) -> None:
        """Take in that a volume is turned back by writes from here on, or no longer; the same one again is
        fine."""
        began = event if isinstance(event, RewriteBegan) else None
        self._rewrites.setdefault(event.volume, {})[timeline, position] = began

    def forget(self, timeline: int, position: int) -> None:
        """Leave out what a timeline says from a position on."""

        def gone(place: tuple[int, int]) -> bool:
            return place[0] == timeline and place[1] >= position

        self._volumes = {place: each for place, each in self._volumes.items() if not gone(place)}
        for volume, reverts in self._reverts.items():
            self._reverts[volume] = {place: each for place, each in reverts.items() if not gone(place)}
        by_position = attrgetter("position")
        self._in_order = {
            volume: sorted(reverts.values(), key=by_position)
            for volume, reverts in self._reverts.items()
            if reverts
        }
        self.known.clear()
        for cut, places in self._to_cut.items():
            self._to_cut[cut] = {place for place in places if not gone(place)}
        for volume, changes in self._changes.items():
            self._changes[volume] = {place: each for place, each in changes.items() if not gone(place)}
        for volume, places in self._deletions.items():
            self._deletions[volume] = {place for place in places if not gone(place)}
        for volume, rewrites in self._rewrites.items():
            self._rewrites[volume] = {place: each for place, each in rewrites.items() if not gone(place)}

    def at(self, spans: list[Span]) -> dict[str, Volume]:
        """Volumes by name that exist at the end of a lineage."""
        here = Places(spans)
        living = [self._as_it_is(volume, here) for volume in self._living(here)]
        living.sort(key=lambda volume: volume.id)
        return {volume.name: volume for volume in living}

    def any_at(self, spans: list[Span]) -> bool:
        """Whether one exists at the end of a lineage."""
        return any(True for _ in self._living(Places(spans)))

    def _living(self, here: Places) -> Iterator[Volume]:
        """Those that exist there, as they were made; the newest first."""
        for place, volume in reversed(self._volumes.items()):
            if place in here and not any(at in here for at in self._deletions.get(volume.id, ())):
                yield volume

    def as_it_is(self, volume: Volume, spans: list[Span]) -> Volume:
        """The same volume as it is at the end of a lineage."""
        made = self._volumes.get((volume.timeline, volume.id))
        return self._as_it_is(made, Places(spans)) if made is not None else volume

    def by_id(self, spans: list[Span]) -> dict[int, Volume]:
        """The same by id."""
        return {volume.id: volume for volume in self.at(spans).values()}

    def _as_it_is(self, volume: Volume, here: Places) -> Volume:
        """A volume with the size and the name that it has on a lineage."""
        changes = self._changes.get(volume.id)
        if not changes:
            return volume
        name, size_bytes = volume.name, volume.size_bytes
        for place in sorted((place for place in changes if place in here), key=lambda place: place[1]):
            match changes[place]:
                case VolumeRenamed(name=name):
                    pass
                case VolumeResized(size_bytes=size_bytes):
                    pass
        return replace(volume, name=name, size_bytes=size_bytes)

    def blocks_of(self, spans: list[Span]) -> dict[int, int]:
        """The most blocks that every volume ever had that was created on a lineage, by id; of deleted ones
        too."""
        here = Places(spans)
        return {
            volume.id: -(-self._largest(volume, here) // BLOCK_BYTES)
            for place, volume in self._volumes.items()
            if place in here
        }

    def most_blocks(self, volume: int) -> int:
        """The most blocks that a volume (id) ever had, on any timeline: past its end at a cut there may be
        versions too, and what compares two cuts, or makes a site the same, must not leave them out."""
        made = (each for (_, at), each in self._volumes.items() if at == volume)
        return -(-max(map(self._largest, made), default=0) // BLOCK_BYTES)

    def _largest(self, volume: Volume, here: Places | None = None) -> int:
        """The most bytes that a volume ever had, from when it was made on: on a lineage, or on any."""
        changes = self._changes.get(volume.id, {}).items()
        known = (each for place, each in changes if here is None or place in here)
        sizes = [each.size_bytes for each in known if isinstance(each, VolumeResized)]
        return max([volume.size_bytes, *sizes])

    def find(self, spans: list[Span], name: str, subject: str) -> Volume:
        """The volume of that name on a lineage; NotFound names `subject`."""
        volume = self.at(spans).get(name)
        if volume is None:
            raise NotFound(
                f"there is no volume {subject} here",
                subject=subject,
                next_step="`farshore volume list` shows those that exist",
            )
        return volume

    def reverts_of(self, volume: int) -> list[RevertEntry]:
        """Reverts of a volume id on any timeline, in order of position."""
        return list(self._in_order.get(volume, ()))

    def last_revert(self, volume: int, spans: list[Span]) -> RevertEntry | None:
        """The newest revert of a volume id on a lineage."""
        entries = self._in_order.get(volume)
        if not entries or not spans:
            return None
        at = bisect_left(entries, spans[-1].end, key=attrgetter("position"))
        newer = (entry for entry in reversed(entries[:at]) if holds(spans, entry.timeline, entry.position))
        return next(newer, None)

    def half_way(self, spans: list[Span], volume: int) -> RewriteBegan | None:
        """The turn back by writes that a volume (id) is in the middle of at the end of a lineage."""
        rewrites = self._rewrites.get(volume, {})
        here = [place for place in rewrites if holds(spans, *place)]
        if not here:
            return None
        last = max(here, key=lambda place: place[1])
        revert = self.last_revert(volume, spans)
        if revert is not None and revert.position > last[1]:
            return None
        return rewrites[last]

    def require_whole(self, spans: list[Span], volume: int, subject: str) -> None:
        """WrongState while a volume (id; `subject` its name) is in the middle of a turn back by writes, also
        of one that was cut short."""
        half_way = self.half_way(spans, volume)
        if half_way is None:
            return
        if is_import(half_way):
            raise WrongState(
                f"{subject} {half_way_text(half_way)}",
                subject=subject,
                position=str(half_way.before),
                next_step=f"`farshore volume import FILE {subject} --confirm {subject}` writes all of it, "
                f"`farshore restore volume {subject} --at {half_way.before} --confirm {subject}` undoes it",
            )
        raise WrongState(
            f"{subject} {half_way_text(half_way)}: it is neither that nor what it was before",
            subject=subject,
            position=str(half_way.cut),
            next_step=f"`farshore restore volume {subject} --at {half_way.cut}` completes it, "
            f"`--at {half_way.before}` undoes it",
        )

    def all_reverts(self) -> list[RevertEntry]:
        """Every revert on any timeline."""
        return [entry for entries in self._reverts.values() for entry in entries.values()]

    def reverts_to(self, cut: Cut) -> list[tuple[int, int]]:
        """Where reverts to exactly that cut are, (timeline, position), on any timeline."""
        return sorted(self._to_cut.get(cut, ()), key=lambda place: place[1])

    def turned_back(self) -> list[int]:
        """Ids of volumes that were ever turned back, on any timeline."""
        return list(self._reverts)


def is_import(half_way: RewriteBegan) -> bool:
    """Whether it is an image that is written into the volume: that is on its way to no cut."""
    return half_way.cut == half_way.before


def half_way_text(half_way: RewriteBegan) -> str:
    """What a volume is that is in the middle of it."""
    if is_import(half_way):
        return f"holds only a part of an image, whose import began at {half_way.before}"
    return f"is half way back to {half_way.cut}"
