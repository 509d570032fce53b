"""The group's index file: which tables it has and how large it may grow."""

from __future__ import annotations

import pathlib

from engine.index.versions import TABLES
from engine.ports.lmdb_store import LmdbStore
from protocol.limits import GROUPS_MAX

INDEX_FILE = "index.mdb"
LOCK_FILE = f"{INDEX_FILE}-lock"
COMPACT_FILE = "index.mdb.compact"  # takes its place when it is whole (engine.index.compaction)
# Address space, not disk: LMDB maps the whole range and the file grows as it is used.
MAP_BYTES = 1 << 40
# What a process has in all, on x86-64 and AArch64; a few TiB are left for everything else.
ADDRESS_BYTES = 1 << 47
if (GROUPS_MAX + 4) * MAP_BYTES > ADDRESS_BYTES:
    raise AssertionError("the index of every group must find address space")


def open_index(directory: pathlib.Path) -> LmdbStore:
    """Open, or make, the index of the group in `directory`."""
    return LmdbStore(directory / INDEX_FILE, MAP_BYTES, TABLES)
