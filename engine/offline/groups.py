"""A dead site's group, opened to be read: its journal and what is left of its index, with no daemon.

It goes through the same recovery as a start of the daemon, on a disk and a store that keep every change to
themselves. What a start would refuse is taken as far as it goes, and said in `notes`: an index that is gone
or damaged (the journal alone will do, unless some of it was folded), and a journal that is damaged further on
(everything before that can be read). What cannot be read in full stays `Corruption`, never half of it.
"""

from __future__ import annotations

import pathlib
import random
from dataclasses import dataclass, field, replace

from engine.group.group import Group
from engine.group.recovery import recover_group
from engine.group.settings import GroupSettings
from engine.group.site_state import SITE_TABLES, GroupRow, Role, SiteState
from engine.history.base_rows import load_bases, load_pending
from engine.history.unread import unread_notes
from engine.index.checkpoint import IndexedTimeline, load_checkpoint, load_records, load_timelines
from engine.index.index_file import INDEX_FILE, MAP_BYTES
from engine.index.requests import IndexerDone, IndexRequest
from engine.index.versions import TABLES
from engine.journal.format import JOURNAL_DIRECTORY
from engine.journal.reader import JournalReader
from engine.journal.segments import SegmentMap
from engine.offline.offline_disk import OfflineDisk
from engine.offline.offline_salvage import began_as, salvage
from engine.ports.clock import Clock
from engine.ports.lmdb_store import LmdbStore
from engine.ports.memory_store import MemoryStore
from engine.ports.store import Store
from engine.retention.needed import load_retention
from protocol.errors import Corruption, FarshoreError, NotFound, ProtocolError, WrongState
from protocol.events import TimelineBegan
from protocol.limits import SEGMENT_FILE_BYTES_MAX
from protocol.positions import POSITION_MAX, Cut, parse_cut, timeline_text

GROUPS_DIRECTORY = "groups"
# More places than this at which a journal does not go on are no accident of a disk.
DAMAGE_TRIES = 32
FOR_EVER_S = 1e9


@dataclass(slots=True)
class OfflineGroup:
    """`group` can be read and nothing else; `notes` say what is missing, for people. With `since`, blocks
    that were not written from there on are among that."""

    group: Group
    state: SiteState
    store: Store
    notes: list[str] = field(default_factory=list)
    since: Cut | None = None

    def close(self) -> None:
        """Close every file."""
        self.group.close()
        self.store.close()


def offline_groups(directory: pathlib.Path) -> list[str]:
    """Names of the groups in a site's directory. NotFound if there are none."""
    groups = directory / GROUPS_DIRECTORY
    found = sorted(each.parent.name for each in groups.glob(f"*/{JOURNAL_DIRECTORY}") if each.is_dir())
    if not found:
        raise NotFound(
            f"{directory} holds no group's journal",
            subject=str(directory),
            next_step="name a site's data directory, or a copy of one",
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadSite:
    """A site's `directory` and, in it, `state_file`; `site_id` tells which frames were its own, and may
    be unknown. Without `with_index` the groups' indexes are left out. With `partial`, what a journal still
    holds will do, where the index that knew the rest is lost."""

    directory: pathlib.Path
    state_file: pathlib.Path
    site_id: str = ""
    with_index: bool = True
    partial: bool = False


def open_offline(site: DeadSite, name: str, clock: Clock) -> OfflineGroup:
    """Open a group. NotFound; Corruption if what it takes is not there."""
    directory = site.directory
    place = directory / GROUPS_DIRECTORY / name
    if not (place / JOURNAL_DIRECTORY).is_dir():
        raise NotFound(
            f"{directory} has no group {name}",
            subject=name,
            next_step=f"it has {', '.join(offline_groups(directory))}",
        )
    notes: list[str] = []
    store = _index(place, notes) if site.with_index else None
    if store is not None:
        try:
            return _open(site, name, store, clock, notes)
        except (FarshoreError, ProtocolError) as error:
            store.close()
            notes.append(f"{INDEX_FILE} is of no use ({error}): only the journal was read")
    try:
        return _open(site, name, MemoryStore(), clock, list(notes))
    except Corruption as error:
        if site.partial:
            return _salvaged(site, name, clock, notes)
        why = "; ".join([*notes, error.message])
        raise Corruption(
            f"the journal alone does not do: {why}",
            subject=error.subject,
            position=error.position,
            next_step="read the volumes at the peer; --partial gives the blocks that the journal still has",
        ) from error


def _salvaged(site: DeadSite, name: str, clock: Clock, notes: list[str]) -> OfflineGroup:
    disk, store = OfflineDisk(site.directory / GROUPS_DIRECTORY / name), MemoryStore()
    state = _state(name, disk, store, site.state_file, notes)
    group = _group(name, site.site_id, disk, store, state, clock)
    found = salvage(group, state.group(name).head)
    group.folding.close()
    if found.since is not None:
        notes.append(f"blocks that were not written since {found.since} are missing: they read as zeroes")
    return OfflineGroup(group, state, store, notes + found.notes + unread_notes(group.unread), found.since)


class _NoIndexer:
    """Nobody writes the index."""

    def start(self, request: IndexRequest, done: IndexerDone) -> None:
        """See `Indexer.start`."""
        done(WrongState("the group is only read"), ())


def _index(place: pathlib.Path, notes: list[str]) -> Store | None:
    """The group's index, if every table can be walked that recovery needs."""
    if not (place / INDEX_FILE).exists():
        notes.append(f"{INDEX_FILE} is missing: only the journal was read")
        return None
    try:
        store = LmdbStore(place / INDEX_FILE, MAP_BYTES, TABLES, readonly=True, alone=True)
    except (FarshoreError, OSError) as error:
        notes.append(f"{INDEX_FILE} cannot be opened ({_words(error)}): only the journal was read")
        return None
    try:
        if missing := sorted(set(TABLES) - store.tables.keys()):
            raise Corruption(f"it lacks {', '.join(missing)}")
        with store.read() as transaction:
            for load in (load_timelines, load_checkpoint, load_retention, load_bases, load_pending):
                load(transaction)
            for _ in load_records(transaction):
                pass
    except (FarshoreError, ProtocolError, OSError) as error:
        store.close()
        notes.append(f"{INDEX_FILE} is damaged ({_words(error)}): only the journal was read")
        return None
    return store


def _open(site: DeadSite, name: str, store: Store, clock: Clock, notes: list[str]) -> OfflineGroup:
    disk = OfflineDisk(site.directory / GROUPS_DIRECTORY / name)
    state = _state(name, disk, store, site.state_file, notes)
    first: Corruption | None = None
    for _ in range(DAMAGE_TRIES):
        group = _group(name, site.site_id, disk, store, state, clock)
        try:
            found = recover_group(group)
        except Corruption as error:
            group.close()
            first = first or error
            if not _leave_out(disk, error):
                raise first from None
            notes.append(f"{error}; what follows there was left out")
            continue
        except BaseException:
            group.close()
            raise
        # Nothing is to happen by itself from here on.
        group.folding.close()
        for spans in state.drops(name).values():
            group.dropping |= dict(spans)
        if found.torn_bytes:
            notes.append(
                f"the journal ends at {found.torn_at}: {found.torn_bytes} bytes there are no whole frame"
            )
        return OfflineGroup(group, state, store, notes + unread_notes(group.unread))
    raise first or Corruption(f"group {name} cannot be opened", subject=name)


def _group(name: str, site_id: str, disk: OfflineDisk, store: Store, state: SiteState, clock: Clock) -> Group:
    return Group(
        name=name,
        site=site_id,
        disk=disk,
        clock=clock,
        store=store,
        indexer=_NoIndexer(),
        state=state,
        rng=random.Random(0),
        settings=GroupSettings(journal_limit_bytes=POSITION_MAX, reserve_bytes=0, window_s=FOR_EVER_S),
        emit=lambda *_, **__: None,
    )


def _leave_out(disk: OfflineDisk, error: Corruption) -> bool:
    """Let a timeline end where it is damaged, and no file of it be larger than a segment. False if it was so
    already."""
    try:
        bad = parse_cut(error.position)
    except FarshoreError:
        return False
    segments = SegmentMap(disk)
    changed = False
    try:
        segments.load_timeline(bad.timeline)
        large = [s for s in segments.of_timeline(bad.timeline) if s.size > SEGMENT_FILE_BYTES_MAX]
        for segment in large:
            disk.limit(segment.path, SEGMENT_FILE_BYTES_MAX)
        if large:
            return True
        for segment in segments.of_timeline(bad.timeline):
            if segment.start + segment.size > bad.position:
                size = max(0, bad.position - segment.start)
                changed = changed or size < segment.size
                if size:
                    disk.limit(segment.path, size)
                else:
                    disk.remove(segment.path)
    finally:
        segments.close()
    return changed


def _words(error: Exception) -> str:
    """What went wrong, without a number that says it again."""
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _state(
    name: str, disk: OfflineDisk, store: Store, state_file: pathlib.Path, notes: list[str]
) -> SiteState:
    """The site's rows in memory, with the group as a follower's: nobody may write it."""
    memory = MemoryStore()
    state = SiteState(memory)
    try:
        held = LmdbStore(state_file, MAP_BYTES, SITE_TABLES, readonly=True, alone=True)
        try:
            memory.copy_from(held, held.tables)
        finally:
            held.close()
        row = state.group(name)
    except (FarshoreError, ProtocolError, OSError) as error:
        head = _newest(disk, store)
        row = GroupRow(name=name, group_id="", role=Role.SECONDARY, head=head, created_utc_ns=0)
        notes.append(
            f"{state_file.name} does not say which history was the newest ({_words(error)}): "
            f"{timeline_text(head)} was taken; --until TIMELINE:POSITION chooses another"
        )
    state.put_group(replace(row, role=Role.SECONDARY))
    return state


def _newest(disk: OfflineDisk, store: Store) -> int:
    """The timeline of the highest generation that reaches furthest. Corruption if none says what it is."""
    segments = SegmentMap(disk)
    reader = JournalReader(segments)
    try:
        with store.read() as transaction:
            rows = load_timelines(transaction)
            apart = {base.timeline for base in load_bases(transaction)}
            if (pending := load_pending(transaction)) is not None:
                apart.add(pending.timeline)
        segments.load()
        found = [
            (_generation(rows.get(each), began_as(reader, each, first[0].start)), first[-1].start, each)
            for each in segments.timelines()
            if each not in apart and (first := segments.of_timeline(each))
        ]
    finally:
        segments.close()
    if not found:
        raise Corruption(
            "the journal is empty",
            subject=JOURNAL_DIRECTORY,
            next_step="restore the files, or read the volumes at the peer",
        )
    return max(found)[2]


def _generation(row: IndexedTimeline | None, began: TimelineBegan | None) -> int:
    """A timeline's generation, by the index or its first frame; 0 if neither says."""
    if row is not None:
        return row.timeline.generation
    return began.generation if began else 0
