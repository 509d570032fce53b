"""The simulated disk loses what it may lose, and keeps what it must: the other side of the contract.

A simulator that is too kind finds nothing. So each loss that the model allows must be seen over some seeds.
"""

from __future__ import annotations

import errno
import random
from functools import partial

import pytest

from tests.sim.sim_disk import SimDisk
from tests.sim.world import Crashed, SimWorld

SEEDS = range(200)


def disk_with_file(seed: int, size_bytes: int = 4096) -> tuple[SimWorld, SimDisk]:
    world = SimWorld(seed)
    disk = SimDisk(world)
    disk.preallocate("a", size_bytes)
    return world, disk


def test_synced_writes_survive_and_others_have_every_fate() -> None:
    seen: set[bytes] = set()
    for seed in SEEDS:
        _, disk = disk_with_file(seed)
        file = disk.open("a")
        file.pwrite(b"S" * 1024, 0)
        disk.sync([file], [])
        file.pwrite(b"T" * 1024, 1024)
        disk.crash()
        after = disk.read_file("a")
        assert after[:1024] == b"S" * 1024
        assert after[2048:] == bytes(2048)
        seen.add(after[1024:1025] + after[1536:1537])
        assert after[1024:2048] in {
            one * 512 + other * 512 for one in (b"\0", b"T") for other in (b"\0", b"T")
        }
    assert seen == {b"\0\0", b"T\0", b"\0T", b"TT"}


def test_a_sector_is_always_one_of_its_states() -> None:
    seen: set[bytes] = set()
    for seed in SEEDS:
        _, disk = disk_with_file(seed)
        file = disk.open("a")
        file.pwrite(b"A" * 100, 0)
        file.pwrite(b"B" * 100, 50)
        disk.crash()
        seen.add(disk.read_file("a")[:512])
    first = b"A" * 100 + bytes(412)
    assert seen == {bytes(512), first, b"A" * 50 + b"B" * 100 + bytes(362)}


def test_a_sync_promises_only_what_was_written_before_it_started() -> None:
    seen: set[bytes] = set()
    for seed in SEEDS:
        world, disk = disk_with_file(seed)
        file = disk.open("a")
        results: list[OSError | None] = []
        file.pwrite(b"old", 0)
        disk.start_sync([file], [], results.append)
        file.pwrite(b"new", 0)
        assert world.run_until(partial(bool, results))
        disk.crash()
        seen.add(disk.read_file("a")[:3])
    assert seen == {b"old", b"new"}


def test_a_crash_during_a_sync_calls_nobody() -> None:
    world, disk = disk_with_file(1)
    results: list[OSError | None] = []
    disk.start_sync([disk.open("a")], [], results.append)
    disk.start_preallocate("b", 4096, results.append)
    disk.crash()
    world.run_for(1.0)
    assert results == []
    assert disk.list_directory("") == ["a"]


def test_a_failed_sync_loses_what_the_next_success_does_not_bring_back() -> None:
    lost = 0
    for seed in SEEDS:
        _, disk = disk_with_file(seed)
        file = disk.open("a")
        file.pwrite(b"x", 0)
        disk.fail_next_sync()
        with pytest.raises(OSError) as caught:
            disk.sync([file], [])
        assert caught.value.errno == errno.EIO
        disk.sync([file], [])
        cached = file.pread(1, 0)
        disk.crash()
        after = disk.read_file("a")[:1]
        lost += cached == b"x" and after == b"\0"
    assert lost > len(SEEDS) // 10


def test_a_sector_written_again_after_a_failed_sync_is_whole() -> None:
    for seed in SEEDS:
        _, disk = disk_with_file(seed)
        file = disk.open("a")
        file.pwrite(b"x", 0)
        disk.fail_next_sync()
        with pytest.raises(OSError):
            disk.sync([file], [])
        cached = file.pread(1, 0)
        file.pwrite(b"y", 1)
        disk.sync([file], [])
        disk.crash()
        assert disk.read_file("a")[:2] == cached + b"y"


def test_growth_is_durable_once_synced() -> None:
    for seed in SEEDS:
        _, disk = disk_with_file(seed, 512)
        file = disk.open("a")
        file.pwrite(b"x" * 1000, 512)
        disk.sync([file], [])
        file.pwrite(b"y", 5000)
        disk.crash()
        assert disk.read_file("a")[512:1512] == b"x" * 1000


def test_a_cut_is_kept_or_lost_as_a_whole() -> None:
    seen: set[int] = set()
    for seed in SEEDS:
        _, disk = disk_with_file(seed, 8192)
        file = disk.open("a")
        old = b"A" * 2048 + bytes(6144)
        file.pwrite(old[:2048], 0)
        disk.sync([file], [])
        file.truncate(1000)
        if seed % 2:
            file.pwrite(b"B", 3000)
        disk.crash()
        after = disk.read_file("a")
        seen.add(len(after))
        cut = b"A" * 1000 + bytes(2000)
        assert after in {old, old[:1000], cut + b"B", cut + b"\0"}
    assert seen == {1000, 3001, 8192}


def test_a_synced_cut_stays() -> None:
    for seed in SEEDS:
        _, disk = disk_with_file(seed)
        file = disk.open("a")
        file.pwrite(b"A" * 4096, 0)
        file.truncate(1000)
        disk.sync([file], [])
        file.pwrite(b"B", 3000)
        disk.crash()
        after = disk.read_file("a")
        assert after[:1000] == b"A" * 1000
        assert after[1000:] in {b"", bytes(2001), bytes(2000) + b"B"}


def test_unsynced_names_are_kept_or_lost() -> None:
    seen: set[tuple[str, ...]] = set()
    for seed in SEEDS:
        _, disk = disk_with_file(seed)
        disk.make_directory("d")
        disk.preallocate("d/gone", 512)
        disk.rename("a", "d/b")
        disk.remove("d/gone")
        disk.crash()
        seen.add((*disk.list_directory(""), *disk.list_directory("d")))
    assert seen == {("a", "d"), ("a", "d", "gone"), ("d", "b"), ("d", "b", "gone")}


def test_synced_names_stay() -> None:
    for seed in SEEDS:
        _, disk = disk_with_file(seed)
        disk.make_directory("d")
        disk.preallocate("d/gone", 512)
        disk.rename("a", "d/b")
        disk.remove("d/gone")
        disk.sync([], ["d"])
        disk.replace_file("d/c", b"content")
        disk.crash()
        assert (disk.list_directory(""), disk.list_directory("d")) == (["d"], ["b", "c"])
        assert disk.read_file("d/c") == b"content"


def test_a_killed_process_loses_its_files_and_nothing_else() -> None:
    _, disk = disk_with_file(1)
    file = disk.open("a")
    file.pwrite(b"x", 0)
    disk.kill()
    with pytest.raises(Crashed):
        file.pread(1, 0)
    with pytest.raises(Crashed):
        disk.sync([file], [])
    assert disk.read_file("a")[:1] == b"x"


def test_a_full_disk_writes_what_fits() -> None:
    world = SimWorld(1)
    disk = SimDisk(world, capacity_bytes=1024)
    file = disk.preallocate("a", 512)
    with pytest.raises(OSError) as caught:
        file.pwrite(b"x" * 1024, 512)
    assert caught.value.errno == errno.ENOSPC
    assert file.size() == 1024
    file.pwrite(b"y" * 512, 0)
    with pytest.raises(OSError) as caught:
        disk.replace_file("b", b"z")
    assert caught.value.errno == errno.ENOSPC
    disk.remove("a")
    disk.replace_file("b", b"z")


def test_a_failed_write_and_a_flipped_bit() -> None:
    _, disk = disk_with_file(1)
    file = disk.open("a")
    disk.fail_next_write(errno.EIO)
    with pytest.raises(OSError):
        file.pwrite(b"x" * 512, 0)
    file.pwrite(bytes(512), 0)
    disk.flip_bit("a", 100, 3)
    assert file.pread(1, 100) == b"\x08"


def test_one_seed_gives_one_run() -> None:
    def run(seed: int) -> str:
        world = SimWorld(seed)
        disk = SimDisk(world)
        workload = random.Random(seed)
        for number in range(20):
            file = disk.preallocate(f"f{number}", 4096)
            for _ in range(5):
                file.pwrite(workload.randbytes(700), workload.randrange(3000))
            disk.start_sync([file], [], partial(world.note, number))
            if number % 5 == 4:
                disk.fail_next_sync()
                disk.crash()
            world.run_for(0.01)
        for name in disk.list_directory(""):
            world.note(name, disk.read_file(name))
        return world.trace_hash()

    assert [run(seed) for seed in range(5)] == [run(seed) for seed in range(5)]
    assert run(1) != run(2)
