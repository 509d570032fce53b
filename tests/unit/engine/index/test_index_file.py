"""Opening a group's index for reading, whatever a crash left of one that was being made."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest

from engine.index.index_file import INDEX_FILE, open_index, open_index_to_read
from engine.index.versions import TABLES
from engine.ports.lmdb_store import LmdbStore
from protocol.errors import Corruption


def left_nothing(path: pathlib.Path) -> None:
    """It had not begun."""


def left_a_name(path: pathlib.Path) -> None:
    """A kill or power loss after the file was made, and before anything stood in it."""
    path.touch()


def left_some_tables(path: pathlib.Path) -> None:
    """A kill between two of its transactions; or an earlier version made it."""
    LmdbStore(path, 1 << 20, TABLES[:2]).close()


@pytest.mark.parametrize("left", [left_nothing, left_a_name, left_some_tables])
def test_it_is_made_whole(tmp_path: pathlib.Path, left: Callable[[pathlib.Path], None]) -> None:
    left(tmp_path / INDEX_FILE)
    for _ in range(2):
        store = open_index_to_read(tmp_path)
        with store.read() as transaction:
            assert all(not transaction.cursor(table).set_range(b"\0") for table in TABLES)
        store.close()


def test_what_is_no_index_any_more_is_damage(tmp_path: pathlib.Path) -> None:
    open_index(tmp_path).close()
    (tmp_path / INDEX_FILE).write_bytes(bytes(4096))
    with pytest.raises(Corruption):
        open_index_to_read(tmp_path)
