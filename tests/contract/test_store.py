"""What versions and copies count on in a store, held by LMDB and by the simulator's."""

from __future__ import annotations

import errno
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from engine.ports.lmdb_store import LmdbStore
from engine.ports.store import Store
from protocol.errors import Corruption
from tests.sim.sim_store import SimStore, StoreFile
from tests.sim.world import Crashed

TABLES = ("blocks", "versions")
MAP_BYTES = 64 << 20


@dataclass
class Rig:
    """A store that can be opened again, after it is closed."""

    open: Callable[..., Store]
    fill: Callable[[], None]
    opened: list[Store] = field(default_factory=list)

    def store(self, readonly: bool = False) -> Store:
        store = self.open(readonly)
        self.opened.append(store)
        return store


@pytest.fixture(params=["sim", "real"])
def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Rig]:
    if request.param == "sim":
        file = StoreFile()
        made = Rig(lambda readonly: SimStore(file, TABLES, readonly), file.fail_next_commit)
    else:
        path = tmp_path / "index.mdb"
        made = Rig(lambda readonly: LmdbStore(path, MAP_BYTES, TABLES, readonly), lambda: None)
    yield made
    for store in made.opened:
        store.close()


def put(store: Store, table: str, *keys: bytes) -> None:
    with store.write() as writer:
        for key in keys:
            writer.put(table, key, b"value of " + key)


def test_tables_are_apart_and_values_are_found(rig: Rig) -> None:
    store = rig.store()
    put(store, "blocks", b"k")
    with store.read() as reader:
        assert reader.get("blocks", b"k") == b"value of k"
        assert reader.get("versions", b"k") is None
        assert reader.get("blocks", b"other") is None
        with pytest.raises(KeyError):
            reader.get("unknown", b"k")


def test_a_write_reads_its_own_writes(rig: Rig) -> None:
    with rig.store().write() as writer:
        writer.put("blocks", b"k", b"1")
        writer.put("blocks", b"k", b"2")
        assert writer.get("blocks", b"k") == b"2"
        assert writer.delete("blocks", b"k")
        assert not writer.delete("blocks", b"k")
        assert writer.get("blocks", b"k") is None
        writer.put("blocks", b"empty", b"")
        assert writer.get("blocks", b"empty") == b""


def test_a_block_that_raises_leaves_nothing(rig: Rig) -> None:
    store = rig.store()
    put(store, "blocks", b"kept")

    def fail() -> None:
        with store.write() as writer:
            writer.put("blocks", b"new", b"x")
            writer.delete("blocks", b"kept")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.read() as reader:
        assert reader.get("blocks", b"new") is None
        assert reader.get("blocks", b"kept") == b"value of kept"
    put(store, "blocks", b"new")


def test_a_reader_keeps_the_state_it_began_with(rig: Rig) -> None:
    store = rig.store()
    put(store, "blocks", b"a")
    with store.read() as before:
        with store.write() as writer:
            writer.put("blocks", b"b", b"2")
            writer.put("blocks", b"a", b"changed")
            with store.read() as during:
                assert during.get("blocks", b"b") is None
        assert before.get("blocks", b"b") is None
        assert before.get("blocks", b"a") == b"value of a"
        cursor = before.cursor("blocks")
        assert cursor.set_range(b"a")
        assert not cursor.next()
        with store.read() as after:
            assert after.get("blocks", b"a") == b"changed"


def test_committed_state_is_there_when_opened_again(rig: Rig) -> None:
    store = rig.store()
    put(store, "blocks", b"a")
    store.close()
    again = rig.store()
    with again.read() as reader:
        assert reader.get("blocks", b"a") == b"value of a"
    again.close()
    reading = rig.store(readonly=True)
    with reading.read() as reader:
        assert reader.get("blocks", b"a") == b"value of a"
    with pytest.raises(PermissionError), reading.write():
        pass


def test_writing_in_a_read_is_refused(rig: Rig) -> None:
    store = rig.store()
    with pytest.raises(PermissionError), store.read() as reader:
        reader.put("blocks", b"k", b"v")  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", [b"", bytes(512)])
def test_a_bad_key_is_refused(rig: Rig, key: bytes) -> None:
    store = rig.store()
    with pytest.raises(ValueError, match="key"), store.write() as writer:
        writer.put("blocks", key, b"v")
    with store.write() as writer:
        writer.put("blocks", bytes(511), b"v")


@pytest.mark.parametrize("count", [0, 1, 7, 5000])
def test_put_sorted(rig: Rig, count: int) -> None:
    store = rig.store()
    put(store, "blocks", b"00000003")
    with store.write() as writer:
        writer.put_sorted("blocks", ((b"%08d" % number, b"%d" % number) for number in range(count)))
    with store.read() as reader:
        cursor = reader.cursor("blocks")
        for number in range(count):
            assert cursor.next()
            assert (cursor.key(), cursor.value()) == (b"%08d" % number, b"%d" % number)


def test_put_sorted_copies_what_it_is_given_a_view_of(rig: Rig) -> None:
    store, data = rig.store(), bytearray(b"abcdef" * 900)
    with store.write() as writer, memoryview(data) as view:
        writer.put_sorted("blocks", ((b"%d" % at, view[at : at + 4080]) for at in range(6)))
    data[:] = bytes(len(data))
    with store.read() as reader:
        assert [reader.get("blocks", b"%d" % at) for at in range(6)] == [
            (b"abcdef" * 900)[at : at + 4080] for at in range(6)
        ]


@pytest.mark.parametrize("count", [1, 3, 5000])
def test_a_cursor_walks_both_ways(rig: Rig, count: int) -> None:
    """5,000 keys fill many pages of LMDB, where its searches end differently from those in one page."""
    store = rig.store()
    keys = [b"%08d" % (2 * number) for number in range(count)]
    with store.write() as writer:
        writer.put_sorted("blocks", ((key, b"v" + key) for key in keys))
    with store.read() as reader:
        cursor = reader.cursor("blocks")
        assert cursor.set_range(b"0")
        forward = [cursor.key()]
        while cursor.next():
            forward.append(cursor.key())
        assert (forward, cursor.key()) == (keys, b"")
        assert not cursor.set_range(b"9")
        assert cursor.key() == b""
        assert cursor.prev(), "straight after a failed set_range, prev goes to the last key"
        backward = [cursor.key()]
        while cursor.prev():
            backward.append(cursor.key())
        assert (backward, cursor.key()) == (keys[::-1], b"")
        middle = keys[len(keys) // 2]
        assert cursor.set_range(middle)
        assert (cursor.key(), cursor.value()) == (middle, b"v" + middle)
        assert cursor.set_range(middle[:-1])
        assert cursor.key() <= middle


def test_each_gap_is_searched_from_both_sides(rig: Rig) -> None:
    store = rig.store()
    with store.write() as writer:
        writer.put_sorted("blocks", ((b"%08d" % (2 * number), b"x" * 100) for number in range(400)))
    with store.read() as reader:
        cursor = reader.cursor("blocks")
        for number in range(399):
            assert cursor.set_range(b"%08d" % (2 * number + 1))
            assert cursor.key() == b"%08d" % (2 * number + 2)
            assert cursor.prev()
            assert cursor.key() == b"%08d" % (2 * number)
        assert not cursor.set_range(b"%08d" % 799)
        assert cursor.prev()
        assert cursor.key() == b"%08d" % 798


def test_a_new_cursor_begins_at_either_end(rig: Rig) -> None:
    store = rig.store()
    put(store, "blocks", b"a", b"b", b"c")
    with store.read() as reader:
        cursor = reader.cursor("blocks")
        assert cursor.key() == b""
        assert cursor.next()
        assert cursor.key() == b"a"
        cursor = reader.cursor("blocks")
        assert cursor.prev()
        assert cursor.key() == b"c"
        empty = reader.cursor("versions")
        assert not empty.set_range(b"a")
        assert not empty.prev()
        assert not reader.cursor("versions").next()


def test_a_search_in_a_write_sees_its_changes(rig: Rig) -> None:
    store = rig.store()
    put(store, "blocks", b"a", b"b", b"c")
    with store.write() as writer:
        cursor = writer.cursor("blocks")
        assert cursor.set_range(b"a")
        assert writer.delete("blocks", b"b")
        writer.put("blocks", b"bb", b"new")
        assert cursor.set_range(b"b")
        assert (cursor.key(), cursor.value()) == (b"bb", b"new")


def test_a_transaction_ends_with_its_block(rig: Rig) -> None:
    store = rig.store()
    put(store, "blocks", b"a")
    with store.read() as reader:
        cursor = reader.cursor("blocks")
        assert cursor.next()
    with pytest.raises(Exception, match=r"ended|closed"):
        cursor.next()
    with pytest.raises(Exception, match=r"ended|closed"):
        reader.get("blocks", b"a")


def test_no_room_is_said_and_changes_nothing(rig: Rig) -> None:
    store = rig.store()
    put(store, "blocks", b"a")
    rig.fill()
    with pytest.raises(OSError) as caught, store.write() as writer:
        writer.put_sorted("blocks", ((b"%08d" % number, bytes(4080)) for number in range(MAP_BYTES // 4080)))
    assert caught.value.errno == errno.ENOSPC
    put(store, "blocks", b"b")
    with store.read() as reader:
        assert reader.get("blocks", b"a") == b"value of a"
        assert reader.get("blocks", b"b") == b"value of b"
        assert reader.get("blocks", b"00000000") is None


def test_sim_handles_from_before_a_crash_are_dead() -> None:
    file = StoreFile()
    store = SimStore(file, TABLES)
    put(store, "blocks", b"a")

    def crash_in_a_write() -> None:
        with store.write() as writer:
            writer.put("blocks", b"b", b"lost")
            file.crash()

    with pytest.raises(Crashed):
        crash_in_a_write()
    with pytest.raises(Crashed):
        store.read()
    with SimStore(file, TABLES).read() as reader:
        assert reader.get("blocks", b"a") == b"value of a"
        assert reader.get("blocks", b"b") is None


def test_sim_refuses_what_the_port_leaves_open() -> None:
    store = SimStore(StoreFile(), TABLES)
    put(store, "blocks", b"a", b"b")
    with store.write() as writer:
        cursor = writer.cursor("blocks")
        assert cursor.set_range(b"b")
        assert not cursor.next()
        with pytest.raises(RuntimeError):
            cursor.prev()
        assert cursor.set_range(b"a")
        writer.delete("blocks", b"a")
        with pytest.raises(RuntimeError):
            cursor.next()


WRITER = """
import os, pathlib, signal, sys
from engine.ports.lmdb_store import LmdbStore
store = LmdbStore(pathlib.Path(sys.argv[1]), int(sys.argv[2]), ("blocks", "versions"))
with store.write() as writer:
    writer.put("blocks", b"committed", b"1")
    writer.put_sorted("versions", ((b"%08d" % number, bytes(4000)) for number in range(int(sys.argv[3]))))
reading = store.read().__enter__()
with store.write() as writer:
    writer.put("blocks", b"open", b"1")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def write_in_another_process(path: pathlib.Path, map_bytes: int, count: int) -> None:
    command = [sys.executable, "-c", WRITER, str(path), str(map_bytes), str(count)]
    root = pathlib.Path(__file__).parents[2]
    assert subprocess.run(command, cwd=root, check=False, timeout=60).returncode == -9


def test_real_processes_share_a_store_and_may_be_killed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "index.mdb"
    store = LmdbStore(path, MAP_BYTES, TABLES)
    write_in_another_process(path, MAP_BYTES, 10)
    with store.read() as reader:
        assert reader.get("blocks", b"committed") == b"1"
        assert reader.get("blocks", b"open") is None
    put(store, "blocks", b"after")
    store.close()


def test_real_a_larger_map_of_another_process_is_taken_over(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "index.mdb"
    store = LmdbStore(path, 1 << 20, TABLES)
    write_in_another_process(path, 16 << 20, 1000)
    with store.write() as writer:
        writer.put_sorted("blocks", ((b"%08d" % number, bytes(4080)) for number in range(1000)))
    store.close()


def test_real_a_compacted_copy_is_the_same_state(tmp_path: pathlib.Path) -> None:
    store = LmdbStore(tmp_path / "index.mdb", MAP_BYTES, TABLES)
    with store.write() as writer:
        writer.put_sorted("blocks", ((b"%08d" % number, bytes(4080)) for number in range(1000)))
    with store.write() as writer:
        for number in range(1, 1000):
            writer.delete("blocks", b"%08d" % number)
    store.copy_compacted(tmp_path / "copy.mdb")
    store.close()
    assert (tmp_path / "copy.mdb").stat().st_size < (tmp_path / "index.mdb").stat().st_size // 10
    copy = LmdbStore(tmp_path / "copy.mdb", MAP_BYTES, TABLES)
    with copy.read() as reader:
        assert reader.get("blocks", b"00000000") == bytes(4080)
        assert reader.get("blocks", b"00000001") is None
    copy.close()


def test_real_a_damaged_file_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "index.mdb").write_bytes(b"x" * 16384)
    with pytest.raises(Corruption) as caught:
        LmdbStore(tmp_path / "index.mdb", MAP_BYTES, TABLES)
    assert caught.value.subject == str(tmp_path / "index.mdb")
    assert caught.value.next_step


def test_real_files_are_private(tmp_path: pathlib.Path) -> None:
    LmdbStore(tmp_path / "index.mdb", MAP_BYTES, TABLES).close()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
