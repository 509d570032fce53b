"""What journals wrote once leaves the page cache, oldest first."""

import asyncio
import os
import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from engine.ports.disk_threads import DiskThreads
from engine.ports.durable import RealDisk
from engine.ports.written_cache import LEAST_BYTES, MOST_BYTES, WrittenCache, default_bytes, drop_cached

MIB = 1 << 20


@pytest.fixture
def directory() -> Iterator[pathlib.Path]:
    """On a disk: what is in memory only is always cached."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        yield pathlib.Path(made)


def cached(path: pathlib.Path) -> bool:
    """Whether the first page can be read without the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(4096)], 0, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def test_the_newest_stay() -> None:
    cache = WrittenCache(10)
    assert [cache.add(name, 4) for name in "abcd"] == [[], [], ["a"], ["b"]]
    assert cache.add("e", 30) == ["c", "d", "e"]
    assert cache.add("f", 10) == []


def test_a_sixteenth_of_memory_is_kept() -> None:
    assert LEAST_BYTES <= default_bytes() <= MOST_BYTES


def test_what_is_not_there_is_passed_over(tmp_path: pathlib.Path) -> None:
    drop_cached(str(tmp_path / "gone"))
    os.mkfifo(tmp_path / "fifo")
    drop_cached(str(tmp_path / "fifo"))


@pytest.fixture
def threads() -> Iterator[DiskThreads]:
    made = DiskThreads(asyncio.new_event_loop(), 2 * MIB)
    yield made
    made.close()
    made.loop.close()


def test_a_disk_gives_up_the_oldest_of_what_it_wrote(directory: pathlib.Path, threads: DiskThreads) -> None:
    disk = RealDisk(directory, threads)
    for name in ("a", "b", "c"):
        file = disk.preallocate(name, MIB)
        file.pwrite(name.encode() * MIB, 0)
        disk.sync([file], [])
        file.close()
        assert cached(directory / name)
        disk.wrote_once(name, MIB)
    threads.others.shutdown(wait=True)
    assert [cached(directory / name) for name in ("a", "b", "c")] == [False, True, True]
    assert (directory / "a").read_bytes() == b"a" * MIB


def test_without_threads_nothing_is_given_up(tmp_path: pathlib.Path) -> None:
    RealDisk(tmp_path, None).wrote_once("any", MIB)
