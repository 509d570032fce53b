"""What a dead site remembered of one group; where that is lost, which of its histories was the newest."""

from __future__ import annotations

import pathlib
from dataclasses import replace

from engine.group.site_state import SITE_TABLES, GroupRow, Role, SiteState
from engine.index.index_file import ROOM_BYTES
from engine.journal.format import JOURNAL_DIRECTORY
from engine.journal.reader import JournalReader
from engine.journal.segments import SegmentMap
from engine.offline.offline_disk import OfflineDisk
from engine.offline.offline_index import timelines_in, words_of
from engine.offline.offline_salvage import began_as
from engine.ports.lmdb_store import LmdbStore
from engine.ports.memory_store import MemoryStore
from engine.ports.store import Store
from protocol.errors import Corruption, FarshoreError, ProtocolError
from protocol.positions import timeline_text


def load_state(
    name: str, disk: OfflineDisk, store: Store, state_file: pathlib.Path, notes: list[str]
) -> SiteState:
    """The site's rows in memory, with the group as a follower's: nobody may write it."""
    memory = MemoryStore()
    state = SiteState(memory)
    try:
        held = LmdbStore(state_file, ROOM_BYTES, SITE_TABLES, readonly=True, alone=True)
        try:
            memory.copy_from(held, held.tables)
        finally:
            held.close()
        row = state.group(name)
    except (FarshoreError, ProtocolError, OSError) as error:
        head = _newest(disk, store)
        row = GroupRow(name=name, group_id="", role=Role.SECONDARY, head=head, created_utc_ns=0)
        notes.append(
            f"{state_file.name} does not say which history was the newest ({words_of(error)}): "
            f"{timeline_text(head)} was taken; --until TIMELINE:POSITION chooses another"
        )
    state.put_group(replace(row, role=Role.SECONDARY))
    return state


def _newest(disk: OfflineDisk, store: Store) -> int:
    """The timeline of the highest generation that reaches furthest. Corruption if none says what it is."""
    segments = SegmentMap(disk)
    reader = JournalReader(segments)
    try:
        generations, apart = timelines_in(store)
        segments.load()
        found = [
            (generations.get(each) or _began(reader, each, first[0].start), first[-1].start, each)
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


def _began(reader: JournalReader, timeline: int, start: int) -> int:
    """A timeline's generation by its first frame; 0 if that does not say."""
    began = began_as(reader, timeline, start)
    return began.generation if began else 0
