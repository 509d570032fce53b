"""The group's index file: which tables it has and how large it may grow."""

from __future__ import annotations

import pathlib

from engine.index.versions import TABLES
from engine.ports.lmdb_store import LacksTables, LmdbStore
from protocol.limits import GROUPS_MAX

INDEX_FILE = "index.mdb"
LOCK_FILE = f"{INDEX_FILE}-lock"
COMPACT_FILE = "index.mdb.compact"  # takes its place when it is whole (engine.index.compaction)
# Address space, not disk, for what one request to the indexer may add. Who writes has more, so that no write
# is lost for want of it; a reader that lacks some takes it with its next transaction. A daemon has all its
# groups' indexes open, an indexer a few.
ROOM_BYTES = 2 << 30
WRITER_ROOM_BYTES = 256 << 30
# What a process has in all, on x86-64 and AArch64.
ADDRESS_BYTES = 1 << 47
if 16 * GROUPS_MAX * ROOM_BYTES > ADDRESS_BYTES:
    raise AssertionError("the index of every group must find address space, and may grow")


def open_index(directory: pathlib.Path, room_bytes: int = ROOM_BYTES) -> LmdbStore:
    """Open, or make, the index of the group in `directory`."""
    return LmdbStore(directory / INDEX_FILE, room_bytes, TABLES)


def open_index_to_read(directory: pathlib.Path) -> LmdbStore:
    """The same for who never writes it."""
    path = directory / INDEX_FILE
    # One that a crash left empty was only just made: that it is not there says the same.
    if path.exists() and path.stat().st_size:
        try:
            return LmdbStore(path, ROOM_BYTES, TABLES, readonly=True)
        except LacksTables:
            pass  # an earlier version made it, or a crash came before it was whole
    open_index(directory).close()
    return LmdbStore(path, ROOM_BYTES, TABLES, readonly=True)
