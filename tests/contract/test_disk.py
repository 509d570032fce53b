"""What the journal counts on in a disk, held by the real one and by the simulator's."""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from engine.ports.disk import Buffer, Disk
from engine.ports.disk_threads import DiskThreads
from engine.ports.durable import RealDisk, lock_file
from tests.contract.drivers import Driver, LoopDriver, SimDriver
from tests.sim.sim_disk import SimDisk


@dataclass
class Rig:
    """A disk, and what runs its callbacks."""

    disk: Disk
    driver: Driver

    def finish(self, results: list[OSError | None], count: int) -> None:
        self.driver.run_until(lambda: len(results) == count)


@pytest.fixture(params=["sim", "real"])
def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Rig]:
    if request.param == "sim":
        driver = SimDriver()
        yield Rig(SimDisk(driver.world), driver)
        return
    real = LoopDriver()
    disk = RealDisk(tmp_path, DiskThreads(real.loop))
    yield Rig(disk, real)
    disk.close()
    real.close()


def test_what_is_missing_is_said(rig: Rig) -> None:
    for call in (rig.disk.open, rig.disk.read_file, rig.disk.remove):
        with pytest.raises(FileNotFoundError):
            call("none")
    with pytest.raises(FileNotFoundError):
        rig.disk.rename("none", "other")
    with pytest.raises(FileNotFoundError):
        rig.disk.preallocate("none/a", 4096)
    assert rig.disk.list_directory("none") == []
    assert not rig.disk.exists("none")


def test_a_preallocated_file_is_zeroes_of_its_size(rig: Rig) -> None:
    file = rig.disk.preallocate("a.seg", 8192)
    assert (file.path, file.size()) == ("a.seg", 8192)
    assert file.pread(8192, 0) == bytes(8192)
    assert rig.disk.exists("a.seg")
    assert rig.disk.free_bytes() > 0


def test_what_was_never_written_is_known_to_be_zeroes(rig: Rig) -> None:
    """A start must not read the rest of every segment."""
    file = rig.disk.preallocate("a.seg", 1 << 20)
    for written in (0, 4096, 8192, 8193, 300_000):
        file.pwrite(b"x" * written, 0)
        assert written <= file.data_end() <= 1 << 20
        rig.disk.sync([file], [""])
        end = file.data_end()
        assert written <= end < written + (64 << 10)
    # What was read once may count as data: it is in the cache.
    assert not any(file.pread((1 << 20) - end, end))
    file.truncate(4096)
    assert file.data_end() == 4096


def test_preallocating_a_taken_name_is_refused(rig: Rig) -> None:
    rig.disk.preallocate("a", 4096).pwrite(b"kept", 0)
    with pytest.raises(FileExistsError):
        rig.disk.preallocate("a", 4096)
    assert rig.disk.open("a").pread(4, 0) == b"kept"


def test_no_room_leaves_nothing_behind(rig: Rig) -> None:
    with pytest.raises(OSError) as caught:
        rig.disk.preallocate("huge", 1 << 62)
    # File systems refuse a size beyond their format before they look for room.
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert rig.disk.list_directory("") == []


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_written_is_read(rig: Rig, kind: type[Buffer]) -> None:
    file = rig.disk.preallocate("a", 4096)
    file.pwrite(kind(b"x" * 1000), 100)
    file.pwrite(kind(b"yz"), 1099)
    assert file.pread(1003, 99) == b"\0" + b"x" * 999 + b"yz" + b"\0"
    assert rig.disk.open("a").pread(3, 1098) == b"xyz"


def test_a_read_is_short_only_at_the_end(rig: Rig) -> None:
    file = rig.disk.preallocate("a", 4096)
    assert len(file.pread(100, 4090)) == 6
    assert file.pread(100, 4096) == b""
    assert file.pread(100, 9000) == b""


def test_a_write_past_the_end_extends(rig: Rig) -> None:
    file = rig.disk.preallocate("a", 512)
    file.pwrite(b"end", 1000)
    assert file.size() == 1003
    assert file.pread(2000, 510) == bytes(490) + b"end"


def test_truncate_cuts_and_a_later_write_finds_zeroes(rig: Rig) -> None:
    file = rig.disk.preallocate("a", 8192)
    file.pwrite(b"x" * 4096, 0)
    file.truncate(1000)
    assert (file.size(), rig.disk.read_file("a")) == (1000, b"x" * 1000)
    file.pwrite(b"y", 3000)
    assert file.pread(4096, 998) == b"xx" + bytes(2000) + b"y"
    file.truncate(3001)
    file.truncate(0)
    assert rig.disk.open("a").size() == 0


def test_a_closed_file_fails(rig: Rig) -> None:
    file = rig.disk.preallocate("a", 4096)
    file.close()
    file.close()
    results: list[OSError | None] = []
    for call in (
        lambda: file.pread(1, 0),
        lambda: file.pwrite(b"x", 0),
        lambda: file.truncate(0),
        file.size,
        lambda: rig.disk.sync([file], []),
        lambda: rig.disk.start_sync([file], [], results.append),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_directories(rig: Rig) -> None:
    rig.disk.make_directory("groups/vm/journal")
    rig.disk.make_directory("groups/vm/journal")
    rig.disk.preallocate("groups/vm/b", 512).close()
    rig.disk.preallocate("groups/vm/a", 512).close()
    assert rig.disk.list_directory("groups/vm") == ["a", "b", "journal"]
    assert rig.disk.list_directory("") == ["groups"]
    with pytest.raises(OSError) as caught:
        rig.disk.remove("groups/vm")
    assert caught.value.errno == errno.ENOTEMPTY
    rig.disk.remove("groups/vm/journal")
    assert not rig.disk.exists("groups/vm/journal")
    with pytest.raises(FileExistsError):
        rig.disk.make_directory("groups/vm/a")


def test_rename_replaces_and_remove_keeps_open_files(rig: Rig) -> None:
    file = rig.disk.preallocate("a", 512)
    file.pwrite(b"new", 0)
    rig.disk.preallocate("b", 512).close()
    rig.disk.rename("a", "b")
    assert rig.disk.list_directory("") == ["b"]
    assert rig.disk.open("b").pread(3, 0) == b"new"
    rig.disk.remove("b")
    assert rig.disk.list_directory("") == []
    assert file.pread(3, 0) == b"new"
    rig.disk.sync([file], [""])


def test_replace_file(rig: Rig) -> None:
    rig.disk.replace_file("site.toml", b"one")
    rig.disk.replace_file("site.toml", b"second")
    assert rig.disk.read_file("site.toml") == b"second"
    rig.disk.replace_file("site.toml", b"")
    assert rig.disk.read_file("site.toml") == b""
    assert rig.disk.list_directory("") == ["site.toml"]


def test_a_sync_calls_back_once_and_later(rig: Rig) -> None:
    results: list[OSError | None] = []
    file = rig.disk.preallocate("a", 4096)
    for number in range(10):
        file.pwrite(b"x", number)
        rig.disk.start_sync([file], [""], rig.driver.watch(results.append))
    assert results == []
    rig.finish(results, 10)
    assert results == [None] * 10


def test_a_file_may_be_closed_while_it_is_synced(rig: Rig) -> None:
    results: list[OSError | None] = []
    file = rig.disk.preallocate("a", 4096)
    file.pwrite(b"x", 0)
    rig.disk.start_sync([file], [], rig.driver.watch(results.append))
    file.close()
    rig.finish(results, 1)
    assert results == [None]


def test_what_is_synced_may_be_removed_meanwhile(rig: Rig) -> None:
    """A journal failed for good: its sync came to a directory that a dropped branch had left."""
    results: list[OSError | None] = []
    rig.disk.make_directory("d")
    file = rig.disk.preallocate("d/a", 4096)
    file.pwrite(b"x", 0)
    for _ in range(10):  # of which some threads come later than the removal
        rig.disk.start_sync([file], ["d"], rig.driver.watch(results.append))
    file.close()
    rig.disk.remove("d/a")
    rig.disk.remove("d")
    rig.finish(results, 10)
    assert results == [None] * 10


def test_a_failing_sync_is_reported(rig: Rig) -> None:
    results: list[OSError | None] = []
    with pytest.raises(FileNotFoundError):
        rig.disk.sync([], ["none"])
    rig.disk.start_sync([], ["none"], rig.driver.watch(results.append))
    rig.finish(results, 1)
    assert isinstance(results[0], FileNotFoundError)


def test_preallocating_away_from_the_loop(rig: Rig) -> None:
    results: list[OSError | None] = []
    rig.disk.start_preallocate("a", 4096, rig.driver.watch(results.append))
    assert results == []
    rig.finish(results, 1)
    assert results == [None]
    assert rig.disk.open("a").size() == 4096
    rig.disk.start_preallocate("a", 4096, rig.driver.watch(results.append))
    rig.finish(results, 2)
    assert isinstance(results[1], FileExistsError)


# The real disk alone.


def test_real_without_a_loop_calls_back_at_once(tmp_path: pathlib.Path) -> None:
    disk = RealDisk(tmp_path, None)
    results: list[OSError | None] = []
    disk.start_preallocate("a", 4096, results.append)
    disk.start_sync([disk.open("a")], [""], results.append)
    disk.start_sync([], ["none"], results.append)
    assert results[:2] == [None, None]
    assert isinstance(results[2], FileNotFoundError)
    disk.close()


@pytest.mark.parametrize("loop", [True, False])
def test_real_failed_fdatasync_reaches_the_caller(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, loop: bool
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "as the test asked")

    driver = LoopDriver()
    disk = RealDisk(tmp_path, DiskThreads(driver.loop) if loop else None)
    file = disk.preallocate("a", 4096)
    monkeypatch.setattr(os, "fdatasync", fail)
    results: list[OSError | None] = []
    with pytest.raises(OSError, match="as the test asked"):
        disk.sync([file], [])
    disk.start_sync([file], [], driver.watch(results.append))
    driver.run_until(lambda: bool(results))
    assert results[0] is not None
    assert results[0].errno == errno.EIO
    disk.close()
    driver.close()


def test_real_short_transfers_go_on(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, pread = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, bytes(data)[:7], offset))
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 5), offset))
    file = RealDisk(tmp_path, None).preallocate("a", 4096)
    file.pwrite(bytes(range(100)), 3)
    assert file.pread(102, 2) == b"\0" + bytes(range(100)) + b"\0"
    file.close()


def test_real_files_are_private_and_links_not_followed(tmp_path: pathlib.Path) -> None:
    disk = RealDisk(tmp_path, None)
    disk.replace_file("secret", b"x")
    disk.make_directory("keys")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    for call in (disk.open, disk.read_file):
        with pytest.raises(OSError) as caught:
            call("link")
        assert caught.value.errno == errno.ELOOP
    disk.replace_file("link", b"instead of the link", 0o640)
    assert (tmp_path / "secret").read_bytes() == b"x"
    assert (tmp_path / "link").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_real_paths_stay_below_the_root(tmp_path: pathlib.Path, path: str) -> None:
    with pytest.raises(ValueError, match="below the disk's root"):
        RealDisk(tmp_path, None).open(path)


def test_a_lock_has_one_holder(tmp_path: pathlib.Path) -> None:
    held = lock_file(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        lock_file(tmp_path / "lock")
    held.close()
    held.close()
    lock_file(tmp_path / "lock").close()
