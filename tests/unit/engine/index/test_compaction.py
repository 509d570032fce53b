"""An index gives its free pages back: the same content in a smaller file, whatever comes in between."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.indexer_pool import IndexerPool
from engine.index import compaction as compaction_module
from engine.index.checkpoint import CheckpointPlan
from engine.index.compaction import Compaction
from engine.index.index_file import COMPACT_FILE, INDEX_FILE
from engine.index.requests import Indexer
from engine.ports.durable import RealDisk
from engine.ports.lmdb_store import LmdbStore
from protocol.errors import Busy
from tests.unit.engine.group_rig import GroupRig

TIMEOUT_S = 30.0
ROWS = 2_000


@pytest.fixture(autouse=True)
def any_free_page_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_module, "FREE_BYTES_MIN", 1 << 20)


def store_of(rig: GroupRig) -> LmdbStore:
    assert isinstance(rig.group.store, LmdbStore)
    return rig.group.store


def compaction_of(rig: GroupRig, indexer: Indexer) -> Compaction:
    return Compaction(rig.group, store_of(rig), indexer, RealDisk(rig.directory / "g", None))


def fill_and_free(rig: GroupRig) -> None:
    """Most of the index is rows that came and went."""
    rng = random.Random(3)
    keys = [b"%08d" % number for number in range(ROWS)]
    with store_of(rig).write() as write:
        write.put_sorted("blocks", [(key, rng.randbytes(4080)) for key in keys])
    with store_of(rig).write() as write:
        for key in keys[10:]:
            write.delete("blocks", key)
    with store_of(rig).write() as write:
        write.put("meta", b"a", b"1")


def size(rig: GroupRig) -> int:
    return (rig.directory / "g" / INDEX_FILE).stat().st_size


def test_free_pages_go_and_the_content_stays(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    rig.checkpoint()
    fill_and_free(rig)
    used, total = store_of(rig).space()
    assert used < total // 4
    before = size(rig)
    compaction_of(rig, rig.indexer).consider()
    assert rig.events[-1][0] == "index.compacted"
    assert size(rig) < before // 4
    rig.write(volume, 1, b"b")
    rig.checkpoint()
    assert rig.letters("root") == "ab.."
    assert not (rig.directory / "g" / COMPACT_FILE).exists()
    assert (rig.directory / "g" / INDEX_FILE).stat().st_mode & 0o777 == 0o600
    assert rig.reopen().frames == 0
    assert rig.letters("root") == "ab.."


def test_an_index_that_is_mostly_used_stays(rig: GroupRig) -> None:
    with store_of(rig).write() as write:
        write.put_sorted("blocks", [(b"%08d" % number, bytes(4080)) for number in range(ROWS)])
    compaction_of(rig, rig.indexer).consider()
    assert not rig.indexer.requests


def test_while_somebody_reads_it_is_put_off(rig: GroupRig) -> None:
    fill_and_free(rig)
    before = size(rig)
    compaction = compaction_of(rig, rig.indexer)
    with store_of(rig).read() as read:
        compaction.consider()
        assert read.get("meta", b"a") == b"1"
        assert size(rig) == before
        assert not (rig.directory / "g" / COMPACT_FILE).exists()
        with pytest.raises(Busy), store_of(rig).let_go():
            pass
    compaction.consider()
    assert size(rig) < before // 4


def test_a_failure_leaves_the_old_one(rig: GroupRig) -> None:
    fill_and_free(rig)
    before = size(rig)
    rig.indexer.failures = [OSError(28, "no space")]
    compaction = compaction_of(rig, rig.indexer)
    compaction.consider()
    assert rig.events[-1][0] == "index.compact_failed"
    assert size(rig) == before


def test_what_a_crash_left_is_removed(rig: GroupRig) -> None:
    (rig.directory / "g" / COMPACT_FILE).write_bytes(b"half a copy")
    compaction_of(rig, rig.indexer).start()
    assert not (rig.directory / "g" / COMPACT_FILE).exists()


@pytest.mark.parametrize("more", [0, 1])  # LMDB has two places for its newest state, and goes by the count
def test_who_has_the_old_file_open_spoils_nothing(rig: GroupRig, more: int) -> None:
    """A program that looks at the index from outside, just then: it keeps its lock file, and with that the
    count of transactions of the old file."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    rig.checkpoint()
    fill_and_free(rig)
    for _ in range(more):
        with store_of(rig).write() as write:
            write.put("meta", b"a", b"2")
    script = (
        "import lmdb, sys; e = lmdb.open(sys.argv[1], subdir=False, readonly=True, lib_version=0);"
        "print(1, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(rig.directory / "g" / INDEX_FILE)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outsider:
        assert outsider.stdout is not None
        assert outsider.stdout.readline() == b"1\n"
        compaction_of(rig, rig.indexer).consider()
        assert rig.events[-1][0] == "index.compacted"
        rig.write(volume, 1, b"b")
        rig.checkpoint()
        assert rig.reopen().frames == 0
        assert rig.letters("root") == "ab.."
        outsider.kill()


def test_the_child_goes_on_with_the_new_file(rig: GroupRig, directory: Path) -> None:
    """Requests that wait behind a compaction are carried out in the file that it leaves."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    rig.checkpoint()
    fill_and_free(rig)
    before = size(rig)
    rig.write(volume, 1, b"b")

    async def scenario() -> None:
        pool = IndexerPool(rig.directory, 1)
        child = pool.of("g")
        compaction = compaction_of(rig, child)
        for byte in (b"c", b"d"):
            end = rig.end
            timelines = tuple(rig.group.timelines.all())
            plan = CheckpointPlan(target=end, durable=end.position, timelines=timelines)
            done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            compaction.consider()
            child.start(plan, lambda error, _, done=done: done.set_result(error))
            assert await asyncio.wait_for(done, TIMEOUT_S) is None
            rig.write(volume, 2, byte)
        compaction.close()
        await child.stop()
        await pool.stop()

    asyncio.run(scenario())
    assert size(rig) < before // 4
    assert [kind for kind, _ in rig.events].count("index.compacted") == 1
    assert rig.reopen().frames == 1
    assert rig.letters("root") == "abd."
