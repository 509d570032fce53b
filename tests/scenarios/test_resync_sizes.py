"""What a first copy and a resync send: what changed, and little beside it, whatever the journal still holds.

By default a quarter of the sizes that are promised (docs/testing.md); FARSHORE_FULL=1 takes the whole.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from console.demo.host import Host
from protocol.limits import HISTORY_SHIPPED_BYTES_MAX
from tests.support.clients import MIB, same_content, succeed
from tests.support.pairs import POLL_S, same_at_the_cut, start_pair
from tests.support.sites import Site, running_sites

pytestmark = pytest.mark.slow

PARTS = 1 if os.environ.get("FARSHORE_FULL") == "1" else 4
VOLUME_BYTES = 1024 * MIB // PARTS
CHANGED_BYTES = 64 * MIB // PARTS
RESYNC_MOST = int(1.2 * CHANGED_BYTES)
BLOCK_BYTES = 4096
# A journal that holds neither the volume nor what is written while the pair is split.
SMALL_JOURNAL = f"journal_limit_bytes = {256 * MIB // PARTS}\nwindow_s = 0\n"
REWRITES = 6
SPARSE_BYTES = 10 * 1024 * MIB // PARTS
ALLOCATED_BYTES = 1024 * MIB // PARTS
COPY_MOST = int(1.1 * ALLOCATED_BYTES)


@contextmanager
def sites(settings: str = "") -> Iterator[tuple[Site, Site]]:
    """Two sites that end cleanly."""
    with running_sites("a", "b", settings=settings) as (a, b):
        yield a, b
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


def random_image(path: Path) -> Path:
    """A volume's content."""
    rng = random.Random(41)
    with path.open("wb") as image:
        for _ in range(VOLUME_BYTES // MIB):
            image.write(rng.randbytes(MIB))
    return path


def rewrite(site: Site, rng: random.Random, blocks: Iterable[int]) -> None:
    """New content for these blocks of `g/v`, durable when it returns."""
    with Host(site.nbd_socket, "g/v") as host:
        host.write_all((block * BLOCK_BYTES, rng.randbytes(BLOCK_BYTES)) for block in blocks)
        host.flush()


def sent_by(site: Site) -> int:
    """Bytes sent to the peer since the pair was made."""
    sent: int = site.json("pair", "show", "g")["sent_bytes"]
    return sent


def check_sent(sent: int, most: int, what: str) -> None:
    """Keep to the promise."""
    assert sent <= most, f"{sent / MIB:.1f} MiB sent for {what}, {most / MIB:.1f} are promised"
    print(f"{sent / MIB:.2f} MiB sent for {what}, {most / MIB:.2f} are promised")


def test_resync_by_the_journal(scratch: Path) -> None:
    """Split, a sixteenth of the volume rewritten, resync: the journal since then is sent."""
    image = random_image(scratch / "image")
    with sites() as (a, b):
        start_pair(a, b, "g/v", VOLUME_BYTES)
        succeed("nbdcopy", image, a.uri("g/v"))
        a.farshore("wait", "g", "--timeout", "100")
        a.farshore("pair", "split", "g")
        before = sent_by(a)
        rng = random.Random(42)
        rewrite(a, rng, rng.sample(range(VOLUME_BYTES // BLOCK_BYTES), CHANGED_BYTES // BLOCK_BYTES))
        a.farshore("pair", "resync", "g")
        same_at_the_cut(a, b, "g", ("v",))
        check_sent(sent_by(a) - before, RESYNC_MOST, f"{CHANGED_BYTES / MIB:g} MiB changed")


def test_resync_by_changed_blocks(scratch: Path) -> None:
    """The same blocks rewritten again and again, until the journal since the split has gone: each is sent
    once. Until all are there, the secondary holds what it held at the split."""
    image = random_image(scratch / "image")
    with sites(SMALL_JOURNAL) as (a, b):
        a.create_volume("g/v", str(VOLUME_BYTES))
        succeed("nbdcopy", image, a.uri("g/v"))
        a.farshore("pair", "create", "g", "--with", "b")
        a.farshore("wait", "g", "--state", "paired", "--timeout", "100")
        a.farshore("wait", "g", "--timeout", "100")
        check_sent(sent_by(a), int(1.1 * VOLUME_BYTES), f"a first copy of {VOLUME_BYTES / MIB:g} MiB")
        a.farshore("pair", "split", "g")
        before = sent_by(a)
        rng = random.Random(43)
        blocks = rng.sample(range(VOLUME_BYTES // BLOCK_BYTES), CHANGED_BYTES // BLOCK_BYTES)
        for _ in range(REWRITES):
            rewrite(a, rng, blocks)
        events = a.json("events")["events"]
        assert any(event["kind"] == "journal.holder_detached" for event in events), "the journal reaches back"

        a.farshore("peer", "set", "b", "--rate", "1M")
        a.farshore("pair", "resync", "g")
        wait_until(lambda: sent_by(a) > before, "something is sent")
        same_content(image, b.uri("g/v@latest"))
        assert a.json("pair", "show", "g")["state"] == "copying", "over before the secondary was looked at"
        a.farshore("peer", "set", "b", "--rate", "none")
        a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
        rewrite(a, rng, blocks[:1])  # The first frame that comes by the journal again: both ends show it.
        same_at_the_cut(a, b, "g", ("v",))
        check_sent(sent_by(a) - before, RESYNC_MOST, f"{CHANGED_BYTES / MIB:g} MiB changed")


def wait_until(reached: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Ask again and again."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(POLL_S)


@contextmanager
def writing_host(site: Site, fio: str, directory: Path) -> Iterator[Callable[[], int]]:
    """fio, 2 MB a second all over the volume, until the function given is called, which says how many bytes
    it wrote."""
    report, stop = directory / "fio.json", directory / "stop"
    words = [fio, "--name=host", "--ioengine=nbd", f"--uri={site.uri('g/v')}", f"--size={SPARSE_BYTES}"]
    words += ["--rw=randwrite", "--bs=4k", "--iodepth=4", "--rate_iops=500", "--time_based", "--runtime=200"]
    words += [f"--trigger-file={stop}", "--trigger=true", "--output-format=json", f"--output={report}"]
    host = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd=directory)

    def end() -> int:
        assert host.poll() is None, "the host ended too early"
        stop.touch()
        assert host.wait(60) == 0
        (job,) = json.loads(report.read_text())["jobs"]
        assert job["error"] == 0
        written: int = job["write"]["io_bytes"]
        return written

    try:
        wait_until(lambda: site.json("volume", "show", "g/v")["hosts"] > 0, "the host is there")
        yield end
    finally:
        host.kill()
        host.wait()


def test_first_copy_of_a_sparse_volume(scratch: Path, tool: Callable[[str], str]) -> None:
    """A tenth of the volume is allocated and more than that was written. What the peer gets is what there
    is, while a host writes on."""
    rng = random.Random(44)
    data = rng.randbytes(MIB)
    pieces = range(0, SPARSE_BYTES, SPARSE_BYTES // (ALLOCATED_BYTES // MIB))
    rewritten = pieces[: len(pieces) // 4]
    written = (len(pieces) + len(rewritten)) * MIB
    # A journal that is short is sent as it is: the smaller volume needs one that does not reach back.
    with sites("" if written > HISTORY_SHIPPED_BYTES_MAX else SMALL_JOURNAL) as (a, b):
        a.create_volume("g/v", str(SPARSE_BYTES))
        with Host(a.nbd_socket, "g/v") as host:
            for at in (*pieces, *rewritten):
                host.write(at, data[at % 4096 :] + data[: at % 4096])
        with writing_host(a, tool("fio"), scratch) as end:
            a.farshore("pair", "create", "g", "--with", "b")
            a.farshore("wait", "g", "--state", "paired", "--timeout", "100")
            by_host = end()
        same_at_the_cut(a, b, "g", ("v",))
        what = f"{ALLOCATED_BYTES / MIB:g} MiB allocated and {by_host / MIB:.1f} written meanwhile"
        check_sent(sent_by(a), COPY_MOST + by_host, what)
