"""A store's file that was cut: found before LMDB maps it and faults."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from engine.ports.lmdb_store import LmdbStore
from protocol.errors import Corruption

TABLES = ("blocks", "versions")
MAP_BYTES = 64 << 20

# Opens argv[2] cut to each length in turn, in each way that there is; says how often it was refused and how
# often it had all rows of argv[1]. A fault ends this process.
CUTTER = """
import pathlib, sys
from engine.ports.lmdb_store import LmdbStore
from protocol.errors import Corruption

def rows(path, *how):
    store = LmdbStore(path, 64 << 20, ("blocks", "versions"), *how)
    try:
        with store.read() as reader:
            found = {}
            for table in store.tables:
                cursor = reader.cursor(table)
                more = cursor.set_range(b"0")
                while more:
                    found[table, cursor.key()] = cursor.value()
                    more = cursor.next()
    finally:
        store.close()
    if not any(how):
        store = LmdbStore(path, 64 << 20, ("blocks", "versions"))
        for value in (bytes(4000), bytes(100_000)):
            with store.write() as writer:
                writer.put_sorted("blocks", ((b"z%08d" % number, value) for number in range(100)))
        store.close()
    return found

whole = pathlib.Path(sys.argv[1])
data, expected = pathlib.Path(sys.argv[2]).read_bytes(), rows(whole, True)
refused = good = 0
for length in map(int, sys.argv[3:]):
    for how in ((), (True,), (True, True)):
        print(length, how, file=sys.stderr, flush=True)
        path = whole.with_name("cut.mdb")
        path.write_bytes(data[:length])
        try:
            assert rows(path, *how) == expected
            good += 1
        except Corruption as error:
            assert error.subject == str(path) and error.next_step
            refused += 1
print(refused, good)
"""


def made_for_cutting(path: pathlib.Path, *, loose: bool) -> None:
    """Values in and outside of leaves, and free pages among them; with `loose`, also some hundred that were
    taken and given back in one transaction: LMDB never writes those."""
    store = LmdbStore(path, MAP_BYTES, TABLES)
    with store.write() as writer:
        writer.put_sorted("versions", ((b"%08d" % number, bytes([number]) * 90) for number in range(200)))
        writer.put_sorted("blocks", ((b"%08d" % number, bytes([number]) * 4080) for number in range(60)))
    with store.write() as writer:
        for number in range(0, 60, 3):
            writer.delete("blocks", b"%08d" % number)
    with store.write() as writer:
        writer.put("blocks", b"00000001", b"long" * 5000)
        if loose:
            writer.put("versions", b"1", bytes(3_000_000))
            writer.delete("versions", b"1")
    store.close()


def opened_cut(whole: pathlib.Path, lengths: list[int], bad: pathlib.Path | None = None) -> tuple[int, int]:
    """How many openings of `whole`, or of its `bad` copy, were refused, and how many had every row."""
    command = [sys.executable, "-c", CUTTER, str(whole), str(bad or whole), *map(str, lengths)]
    root = pathlib.Path(__file__).parents[4]
    done = subprocess.run(command, cwd=root, check=False, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, good = map(int, done.stdout.split())
    return refused, good


def test_a_file_that_was_cut_is_damage_and_no_fault(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "index.mdb"
    made_for_cutting(path, loose=False)
    whole = path.stat().st_size
    steps = range(4096, whole, 4096)
    odd = [1, 100, 4200, 4247, 4248, 8191, 9000, 12289, whole // 2 + 7, whole - 1]
    refused, good = opened_cut(path, [*steps, *odd])
    # The last pages are in use: only a file that lacks nothing has every row.
    assert (refused, good) == (3 * (len(steps) + len(odd)), 0)
    assert opened_cut(path, [whole, whole + 1]) == (0, 6)


def test_a_file_may_lack_pages_that_are_free(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "index.mdb"
    made_for_cutting(path, loose=True)
    whole = path.stat().st_size
    assert whole < 1_000_000
    assert opened_cut(path, [whole]) == (0, 3)
    assert opened_cut(path, [whole - 4096, whole // 2]) == (6, 0)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(40, 0), (40, 3), (40, 1 << 31), (40, 8192), (80, 1 << 40), (80, 2), (136, 1 << 40), (136, 1 << 63)],
)
def test_a_meta_page_that_cannot_be_is_damage_and_no_fault(
    tmp_path: pathlib.Path, offset: int, value: int
) -> None:
    path = tmp_path / "index.mdb"
    made_for_cutting(path, loose=False)
    width = 4 if offset == 40 else 8
    data = bytearray(path.read_bytes())
    width = 4 if offset == 40 else 8
    for page in (0, 4096):
        data[page + offset : page + offset + width] = value.to_bytes(width, sys.byteorder)
    bad = tmp_path / "bad.mdb"
    bad.write_bytes(data)
    # The list of free pages (80) is looked at where pages lack.
    length = len(data) - 4096 if offset == 80 else len(data)
    assert opened_cut(path, [length], bad) == (3, 0)


def test_a_page_of_ones_is_damage(tmp_path: pathlib.Path) -> None:
    """The only page of a table: LMDB says of it that the transaction is bad."""
    path = tmp_path / "index.mdb"
    store = LmdbStore(path, MAP_BYTES, TABLES)
    with store.write() as writer:
        writer.put("blocks", b"k", b"a value to be found by")
    store.close()
    data = bytearray(path.read_bytes())
    page = data.index(b"a value to be found by") & ~4095
    data[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    store = LmdbStore(path, MAP_BYTES, TABLES)
    with pytest.raises(Corruption) as caught, store.read() as reader:
        reader.get("blocks", b"k")
    assert caught.value.subject == str(path)
    store.close()
