"""What this site knows to be damaged: stretches of the journal, versions, records, until they are mended.

Found by verification and by reads that failed; kept in the site's state, so that a restart does not forget
it. A version's damage matters to whoever sees the version: copies, live volumes, any cut whose visibility
contains it and nothing newer. A stretch of the journal matters to readers only as far as the index does not
hold its versions with checksums of their own: past the last checkpoint. Frames that are whole and
not understood are among it, and kept by the group (engine.history.unread).

    state table damage    group\\0 fault u8, four u64 (engine.integrity.faults)    row (found UTC ns)

Finding it out reads the index and nothing else; mending is `engine.integrity.repair`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from engine.copies.copies import Copy
from engine.group.core import GroupCore
from engine.history.unread import UnreadFrame
from engine.history.visibility import Interval
from engine.index.memtable import NOT_FOUND
from engine.index.runs import newest_number
from engine.index.view import ReadBatch, VolumeView
from engine.integrity.faults import KEY, VERSION_FAULTS, Damage, DamagedVersion, Fault
from engine.retention.kept import KeptHistory
from protocol.bounds import UtcNs
from protocol.errors import Trimmed, Unsafe
from protocol.limits import BLOCK_BYTES
from protocol.positions import POSITION_MAX, Cut
from protocol.rows import pack_row
from protocol.wire import RowType

TABLE = "damage"
ROW = RowType(tuple[UtcNs])
# Past this, one more row stands for all that there was no room for, and matters to everyone. Whom damage
# concerns is looked up row by row, on the hosts' loop.
ROWS_MAX = 4096
# A read marks the backups that its damage concerns as long as it is one of few: a host may read on for long.
MARKED_BY_READS_MAX = 16
# What to do where a frame is not understood: its group, its place.
ACCEPT = (
    "a cut up to {1} is sound; `farshore volume online {0}/VOLUME` accepts the volume as it is read here, "
    "and `farshore journal show {0} --since {1}` says why that is not certain"
)


class DamageTable:
    """Known damage of one group, by what it is, with the time when it was last found (UTC ns). `indexed_to`
    gives the position of the head's lineage up to which the index holds everything."""

    def __init__(self, group: GroupCore, kept: KeptHistory, indexed_to: Callable[[], int]) -> None:
        self._group = group
        self._kept = kept
        self._indexed_to = indexed_to
        self._prefix = group.name.encode() + b"\0"
        group.listeners.read_failed.append(self.read_failed)
        self._found: dict[Damage, int] = {}
        for key, value in group.state.notes(TABLE, self._prefix).items():
            fault, *place = KEY.unpack(key[len(self._prefix) :])
            (utc_ns,) = ROW.decode(value)
            self._found[Damage(Fault(fault), (place[0], place[1], place[2], place[3]))] = utc_ns
        self._latest_ns = max(self._found.values(), default=0)

    def moment_ns(self, after_ns: int = 0) -> int:
        """The time now (UTC ns), later than any that was given, and than `after_ns`. What was found before a
        check of everything began, and what during it, must be told apart although the clock goes back."""
        self._latest_ns = max(self._latest_ns + 1, after_ns + 1, self._group.clock.utc_ns())
        return self._latest_ns

    def __len__(self) -> int:
        return len(self._found) + len(self._group.unread)

    def all(self) -> list[Damage]:
        """Everything known, stretches of the journal first, frames that are not understood last."""
        unread = [unread_damage(each) for each in self._group.unread.all()]
        return sorted(self._found, key=lambda damage: damage.key) + unread

    def found(self, damage: Iterable[Damage]) -> list[Damage]:
        """Note what was found now, durably; returns what was not known before."""
        utc_ns = self.moment_ns()
        new = []
        rows = {}
        for each in damage:
            if each.fault is Fault.UNREAD and each.place[:2] in self._group.unread:
                continue  # the journal and the index keep it
            if each not in self._found:
                new.append(each)
                if len(self._found) >= ROWS_MAX:
                    each = Damage(Fault.MORE, (0, 0, 0, 0))
            self._found[each] = utc_ns
            rows[self._prefix + each.key] = pack_row((utc_ns,))
        if rows:
            self._group.state.put_notes(TABLE, rows)
        return new

    def read_failed(self, error: Exception) -> None:
        """Note what a read came upon, if the error says which version it is. Where that cannot be written
        down, it is known until the daemon ends."""
        damage = error.damage if isinstance(error, DamagedVersion) else None
        if damage is None or damage in self._found:
            return
        group = self._group
        named = {"group": group.name, "object": f"{group.name} {damage.subject}", "position": damage.position}
        try:
            self.found([damage])
            if len(self._found) <= MARKED_BY_READS_MAX:
                for copy, concerned in self.copies():
                    group.copies.damaged(copy.id, damage_text(concerned))
        except OSError as failure:
            group.emit("damage.not_saved", **named, error=str(failure))
        group.emit("damage.found", **named, error=damage.message)

    def mended(self, damage: Iterable[Damage]) -> None:
        """These are whole again, or gone."""
        gone = [each for each in damage if self._found.pop(each, None) is not None]
        if gone:
            self._group.state.remove_notes(TABLE, [self._prefix + each.key for each in gone])

    def not_found_since(self, utc_ns: int) -> list[Damage]:
        """What nobody came upon since then."""
        return [damage for damage, found_ns in self._found.items() if found_ns < utc_ns]

    # -- whom it concerns

    def through(self, view: VolumeView) -> list[Damage]:
        """The damage that a reader of the whole view would come upon."""
        unread = self._group.unread.seen(view.volume, view.intervals)
        found = [unread_damage(each) for each in unread]
        if not self._found:
            return found
        with view.batch() as batch:
            return [
                each
                for each in sorted(self._found, key=lambda damage: damage.key)
                if self._concerns(view, batch, each)
            ] + found

    def _concerns(self, view: VolumeView, batch: ReadBatch, damage: Damage) -> bool:
        if damage.fault in VERSION_FAULTS:
            return damage.version[1] == view.volume and sees(view, batch, damage)
        if damage.fault in (Fault.FRAME, Fault.UNREAD):
            return self._unindexed(view, damage)
        return damage.fault is Fault.MORE

    def _unindexed(self, view: VolumeView, damage: Damage) -> bool:
        """Whether the view has versions in a damaged stretch that only the journal knows."""
        group = self._group
        timeline, position, end, _ = damage.place
        if timeline not in group.timelines or end <= self._indexed_to():
            return False
        lane = group.timelines.get(timeline).lane
        return any(
            interval.lane == lane and interval.low < end and position < interval.high
            for interval in view.intervals
        )

    def at(self, volumes: Iterable[int], cut: Cut) -> list[Damage]:
        """The same for volumes (ids) at a cut; empty for what cannot be read there anyway."""
        group = self._group
        if not len(self):
            return []
        spans = group.timelines.lineage(cut.timeline, cut.position)
        found: dict[Damage, None] = {}
        for volume in group.volumes.at(spans).values():
            if volume.id in set(volumes):
                try:
                    found |= dict.fromkeys(self.through(self._kept.view_at(volume.name, cut)))
                except Trimmed:
                    continue
        return list(found)

    def copies(self) -> Iterator[tuple[Copy, list[Damage]]]:
        """Copies on the head's lineage that known damage concerns, with it. Each takes a moment: let hosts in
        between."""
        group = self._group
        held = group.spans(group.writer.written) if len(self) else []
        for copy in group.copies.at(held):
            damage = self.at(copy.volumes, copy.cut)
            if damage:
                yield copy, damage

    def live(self) -> list[str]:
        """Names of volumes that are damaged as they are now."""
        group = self._group
        if not len(self) or not group.head:
            return []
        volumes = group.volumes.at(group.spans())
        return sorted(name for name, volume in volumes.items() if self.through(group.live_view(volume)))

    def require_sound(self, volumes: list[int], cut: Cut, what: str) -> None:
        """Unsafe if `what` would read damage of these volumes at a cut."""
        group, damage = self._group, self.at(volumes, cut)
        if damage:
            held = group.copies.at(group.spans(group.writer.written))
            names = [copy.name for copy in held if copy.cut == cut or group.copies.mark_of(copy.id).damage]
            copies = f"; backups affected: {', '.join(names)}" if names else ""
            unread = all(each.fault is Fault.UNREAD for each in damage)
            step = f"farshore verify {group.name} --deep --repair"
            raise Unsafe(
                f"{what} at {cut} would read {len(damage)} damaged places; {damage[0].message}{copies}",
                subject=what,
                position=str(cut),
                next_step=ACCEPT.format(group.name, damage[0].position) if unread else step,
            )


def unread_damage(unread: UnreadFrame) -> Damage:
    """A frame that is not understood, as damage."""
    return Damage(Fault.UNREAD, (unread.timeline, unread.position, unread.end, 0))


def damage_text(damage: list[Damage]) -> str:
    """What a damaged copy's row says."""
    return f"{len(damage)} places; {damage[0].message}"


def sees(view: VolumeView, batch: ReadBatch, damage: Damage) -> bool:
    """Whether a view would take a damaged version for its block's content, were it whole; of a run, one of
    them."""
    lane, volume, _, number = damage.version
    for at, block in enumerate(damage.block_range):
        if block * BLOCK_BYTES >= view.size_bytes:
            return False
        # What the damaged row of a run held is not known; a number between two of its blocks says enough.
        if _sees(view, batch, (lane, volume, block), (number, number + at * BLOCK_BYTES)):
            return True
    return False


def _sees(view: VolumeView, batch: ReadBatch, place: tuple[int, int, int], numbers: tuple[int, int]) -> bool:
    lane, volume, block = place
    earliest, latest = numbers
    for interval in view.intervals:
        newest = _newest(view, batch, volume, block, interval)
        if interval.lane == lane and interval.low <= earliest < interval.high:
            return newest is None or newest <= latest
        if newest is not None:
            return False
    return False


def _newest(view: VolumeView, batch: ReadBatch, volume: int, block: int, interval: Interval) -> int | None:
    """The number of a block's newest version within an interval; of its row only the key is looked at."""
    entry = view.memtable.newest(volume, block, interval)
    if entry != NOT_FOUND:
        return entry >> 1
    bounded = interval._replace(high=min(interval.high, POSITION_MAX))
    return newest_number(batch.cursor(), volume, block, bounded, batch.levels(interval.lane, volume))
