"""The map of a store: as large as its content asks for, and never changed under who reads through it."""

from __future__ import annotations

import errno
import pathlib
import subprocess
import sys

import pytest

from engine.ports.lmdb_store import LmdbStore
from tests.contract.test_store import TABLES, put, write_in_another_process


def map_bytes(store: LmdbStore) -> int:
    return int(store._environment.info()["map_size"])


def test_the_map_is_as_large_as_the_content_asks_for(tmp_path: pathlib.Path) -> None:
    """A thousand of them must find address space in one process."""
    store = LmdbStore(tmp_path / "index.mdb", 1 << 20, TABLES)
    assert map_bytes(store) == 1 << 20
    for first in range(0, 4000, 100):
        with store.write() as writer:
            writer.put_sorted(
                "blocks", ((b"%08d" % number, bytes(4080)) for number in range(first, first + 100))
            )
    grown = map_bytes(store)
    assert 4000 * 4096 < grown <= 1 << 26
    store.close()
    again = LmdbStore(tmp_path / "index.mdb", 1 << 20, TABLES)
    assert grown <= map_bytes(again) <= 1 << 26
    again.close()


def fill(store: LmdbStore) -> int:
    """Sixteen MiB in one transaction; the number of the error."""
    try:
        with store.write() as writer:
            writer.put_sorted("blocks", ((b"%08d" % number, bytes(4080)) for number in range(4000)))
    except OSError as error:
        return error.errno or -1
    return 0


def test_a_transaction_that_fills_the_map_fails_and_the_next_ones_have_room(
    tmp_path: pathlib.Path,
) -> None:
    store = LmdbStore(tmp_path / "index.mdb", 1 << 20, TABLES)
    failures = [fill(store)]
    while failures[-1]:
        with store.read() as reader:
            assert reader.get("blocks", b"00000000") is None
        failures.append(fill(store))
    assert set(failures) == {0, errno.ENOSPC}
    assert len(failures) <= 6
    with store.read() as reader:
        assert reader.get("blocks", b"00003999") == bytes(4080)
    store.close()


def test_no_map_is_taken_from_under_a_reader(tmp_path: pathlib.Path) -> None:
    """What another process adds meanwhile: those that began before read on, and one that begins waits for
    them. With the map gone from under them the process would end on SIGSEGV."""
    path = tmp_path / "index.mdb"
    store = LmdbStore(path, 1 << 20, TABLES)
    put(store, "blocks", b"before")
    with store.read() as reader:
        write_in_another_process(path, 16 << 20, 1000)
        store.make_room()
        with pytest.raises(OSError) as caught:
            store.read()
        assert caught.value.errno == errno.EAGAIN
        assert reader.get("blocks", b"before") == b"value of before"
        assert reader.get("blocks", b"committed") is None
    with store.read() as reader:
        assert reader.get("blocks", b"committed") == b"1"
        assert reader.get("versions", b"00000999") == bytes(4000)
    store.close()


def test_room_is_made_ahead(tmp_path: pathlib.Path) -> None:
    """So that reads within reads find it."""
    path = tmp_path / "index.mdb"
    store = LmdbStore(path, 8 << 20, TABLES)
    for _ in range(3):
        write_in_another_process(path, 64 << 20, 1000)
        store.make_room()
    with store.read():
        write_in_another_process(path, 64 << 20, 1000)
        with store.read() as reader:
            assert reader.get("versions", b"00000999") == bytes(4000)
    store.close()


def test_a_file_that_says_it_has_a_tebibyte_of_map(tmp_path: pathlib.Path) -> None:
    """As earlier versions made them."""
    path = tmp_path / "index.mdb"
    LmdbStore(path, 1 << 40, TABLES).close()
    write_in_another_process(path, 1 << 40, 100)
    store = LmdbStore(path, 1 << 20, TABLES)
    assert map_bytes(store) <= 1 << 22
    with store.read() as reader:
        assert reader.get("blocks", b"committed") == b"1"
    write_in_another_process(path, 1 << 40, 4000)
    with store.read() as reader:
        assert reader.get("versions", b"00003999") == bytes(4000)
    assert map_bytes(store) <= 1 << 26
    store.close()


WITHOUT_ADDRESS_SPACE = """
import errno, pathlib, resource, sys
from engine.ports.lmdb_store import LmdbStore
store = LmdbStore(pathlib.Path(sys.argv[1]), 1 << 20, ("blocks", "versions"))
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 20), used + (2 << 20)))
said = []
for number in range(20):
    try:
        with store.write() as writer:
            keys = (b"%08d" % (100 * number + each) for each in range(100))
            writer.put_sorted("blocks", ((key, bytes(4080)) for key in keys))
        said.append(0)
    except OSError as error:
        said.append(error.errno)
print(*said)
"""


def test_without_address_space_it_fails_and_nothing_else(tmp_path: pathlib.Path) -> None:
    """LMDB gives the old map up before it takes the new one, and would read where that was."""
    root = pathlib.Path(__file__).parents[4]
    path = tmp_path / "index.mdb"
    command = [sys.executable, "-c", WITHOUT_ADDRESS_SPACE, str(path)]
    done = subprocess.run(command, cwd=root, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [int(each) for each in done.stdout.split()]
    assert said[0] == 0
    assert errno.ENOMEM in said
    written = said.index(errno.ENOMEM)
    assert 0 not in said[written:]
    store = LmdbStore(path, 1 << 20, TABLES)
    with store.read() as reader:
        assert reader.get("blocks", b"%08d" % (100 * written - 1)) == bytes(4080)
    store.close()
