"""A dead site's index of one group: whether it is there, and can be walked."""

from __future__ import annotations

import pathlib

from engine.history.base_rows import load_bases, load_pending
from engine.index.index_file import INDEX_FILE, ROOM_BYTES
from engine.index.indexed_history import load_checkpoint, load_records, load_timelines
from engine.index.versions import TABLES
from engine.ports.lmdb_store import LmdbStore
from engine.ports.store import Store
from engine.retention.needed import load_retention
from protocol.errors import Corruption, FarshoreError, ProtocolError


def load_index(place: pathlib.Path, notes: list[str]) -> Store | None:
    """The group's index, if every table can be walked that recovery needs."""
    if not (place / INDEX_FILE).exists():
        notes.append(f"{INDEX_FILE} is missing: only the journal was read")
        return None
    try:
        store = LmdbStore(place / INDEX_FILE, ROOM_BYTES, TABLES, readonly=True, alone=True)
    except (FarshoreError, OSError) as error:
        notes.append(f"{INDEX_FILE} cannot be opened ({words_of(error)}): only the journal was read")
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
        notes.append(f"{INDEX_FILE} is damaged ({words_of(error)}): only the journal was read")
        return None
    return store


def words_of(error: Exception) -> str:
    """What went wrong, without a number that says it again."""
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def timelines_in(store: Store) -> tuple[dict[int, int], set[int]]:
    """The generations of the timelines that an index knows; and those that hold bases only."""
    with store.read() as transaction:
        generations = {id: row.timeline.generation for id, row in load_timelines(transaction).items()}
        apart = {base.timeline for base in load_bases(transaction)}
        if (pending := load_pending(transaction)) is not None:
            apart.add(pending.timeline)
    return generations, apart


def no_use(error: Exception) -> str:
    """What is said of an index by which the group does not open."""
    return f"{INDEX_FILE} is of no use ({error}): only the journal was read"
