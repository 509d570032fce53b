"""C30: daemons go on whatever becomes of those who read their logs."""

from __future__ import annotations

import contextlib
import os

from tests.support.clients import nbdsh
from tests.support.pairs import start_pair, wait_until
from tests.support.sites import Site, running_sites

VOLUME = "vm1/root"


def with_readers(site: Site) -> list[int]:
    """Start a daemon whose outputs are pipes; their read ends, which nobody reads, and the pipes are full."""
    readers = []
    for path in (site.log_path, site.stderr_path):
        path.unlink()
        os.mkfifo(path)
        readers.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    site.start()
    for path in (site.log_path, site.stderr_path):
        filler = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(filler, b"\n" * 512)
        os.close(filler)
    return readers


def used(site: Site, letter: str) -> None:
    """A host writes and reads, and a backup is taken: its events are lines of the log."""
    nbdsh(
        site.uri(VOLUME),
        f"h.pwrite(b'{letter}' * 4096, 0); h.flush()",
        f"assert h.pread(4096, 0) == b'{letter}' * 4096",
    )
    site.farshore("backup", "create", "vm1")


def test_c30_readers_of_the_log_that_stop_or_die_take_nothing_with_them() -> None:
    with running_sites("a", "b") as (a, b):
        start_pair(a, b, VOLUME, 1 << 20)
        for site in (a, b):
            assert site.stop() == 0
        readers = [*with_readers(a), *with_readers(b)]
        used(a, "A")  # the readers have stopped
        for reader in readers:
            os.close(reader)
        used(a, "B")  # now they are dead
        wait_until(lambda: a.json("status")["log_dropped"] > 0, 10)
        a.farshore("wait", "vm1", "--state", "paired", "--timeout", "30")
        assert a.stop() == 0
        assert b.json("takeover", "vm1", "--confirm", "vm1")["done"]
        used(b, "C")
        assert b.stop() == 0
