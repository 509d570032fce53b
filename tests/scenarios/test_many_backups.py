"""Backups by the hundred under load, kept by the index alone, and any second of a run: all as an oracle says.

By default a small part of what is promised (docs/testing.md); FARSHORE_FULL=1 takes the whole: 200 backups of
2 GiB with a window of 60 s, and a run of 5 minutes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from xxhash import xxh3_128_hexdigest

from console.client import Client
from console.demo.host import Host
from engine.index.index_file import INDEX_FILE, ROOM_BYTES
from engine.index.versions import TABLES
from engine.ports.lmdb_store import LmdbStore
from protocol.commands.backup import BackupCreate, BackupDelete
from protocol.commands.volume import VolumeShow, VolumeUri
from protocol.cut_text import CutBackup, CutTime
from tests.support.clients import MIB, succeed
from tests.support.pairs import start_pair, wait_until
from tests.support.sites import Site, running_sites
from tests.support.write_log import BLOCK_BYTES, Replay, WriteLog

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

FULL = os.environ.get("FARSHORE_FULL") == "1"
VOLUME_BYTES = (2048 if FULL else 128) * MIB
BACKUPS = 200 if FULL else 12
BETWEEN = 100 if FULL else 150  # writes of the oracle's, one a millisecond at most
WINDOW_S = 60 if FULL else 2
FIO_BYTES = (16 if FULL else 8) * MIB
FIO_LOAD = ["--bs=4k", "--rate_iops=1500"] if FULL else ["--bs=16k", "--rate_iops=2000"]
LOG_BYTES = (16 if FULL else 4) * MIB
LOG_START = VOLUME_BYTES - LOG_BYTES
LEAST_FREED = 0.8 if FULL else 0.95
AT_THE_OTHER = 10 if FULL else 4  # every so manieth backup is looked at there too

RUN_S = 300 if FULL else 10
SAMPLE = 100 if FULL else 12
SECOND_NS = 1_000_000_000


@contextmanager
def sites(settings: str) -> Iterator[tuple[Site, Site]]:
    """Two sites that end cleanly."""
    with running_sites("a", "b", settings=settings) as (a, b):
        yield a, b
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


@contextmanager
def asking(*sites: Site) -> Iterator[list[Client]]:
    """A control connection to each: hundreds of commands, and no process for each."""
    clients = [Client(f"ipc://{site.control_socket}") for site in sites]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


@contextmanager
def verifying_host(site: Site, fio: str, directory: Path) -> Iterator[Callable[[], None]]:
    """fio, which reads back and checks what it writes, until the function given is called."""
    report, stop = directory / "fio.json", directory / "stop"
    words = [fio, "--name=host", "--ioengine=nbd", f"--uri={site.uri('g/v')}", f"--size={FIO_BYTES}"]
    words += ["--rw=randwrite", "--iodepth=8", *FIO_LOAD, "--time_based"]
    words += ["--runtime=3000", "--verify=crc32c", "--verify_backlog=512", "--verify_fatal=1"]
    words += ["--verify_state_save=0", f"--trigger-file={stop}", "--trigger=true"]
    words += ["--output-format=json", f"--output={report}"]
    host = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd=directory)

    def end() -> None:
        assert host.poll() is None, f"fio ended too early: {report.read_text()[-2000:]}"
        stop.touch()
        assert host.wait(60) == 0
        (job,) = json.loads(report.read_text())["jobs"]
        assert job["error"] == 0
        assert job["read"]["io_bytes"], "fio verified nothing"

    try:
        yield end
    finally:
        host.kill()
        host.wait()


def read(site: Site, export: str, offset: int, length: int) -> bytes:
    with Host(site.nbd_socket, export) as host:
        return b"".join(
            host.read(at, min(MIB, offset + length - at)) for at in range(offset, offset + length, MIB)
        )


def fio_digest(site: Site, export: str) -> str:
    """Of what fio writes to."""
    return xxh3_128_hexdigest(read(site, export, 0, FIO_BYTES))


def check_whole(site: Site, export: str, log: WriteLog, replay: Replay, early: str, image: Path) -> None:
    """Every byte of an export: fio's part is what it was when the backup was young, the log's what the
    oracle says, and between them nothing was ever written."""
    image.unlink(missing_ok=True)
    succeed("nbdcopy", f"nbd+unix:///{export}?socket={site.nbd_socket}", image)
    with image.open("rb") as file:
        assert image.stat().st_size == VOLUME_BYTES
        assert xxh3_128_hexdigest(file.read(FIO_BYTES)) == early, f"{export} at {site.name}"
        check_empty(file.fileno(), FIO_BYTES, LOG_START)
        region = os.pread(file.fileno(), LOG_BYTES, LOG_START)
    assert region == replay.to(log.newest(region)), f"{export} at {site.name}"


def check_empty(descriptor: int, start: int, end: int) -> None:
    """Nothing but zeroes between two places of a file, most of them holes."""
    at = os.lseek(descriptor, start, os.SEEK_DATA)
    while at < end:
        piece = os.pread(descriptor, min(MIB, end - at), at)
        assert piece == bytes(len(piece)), f"something at {at}"
        at = os.lseek(descriptor, at + len(piece), os.SEEK_DATA)


def older_backups(client: Client) -> int:
    """Backups whose moment only they keep: the window has gone on."""
    history = client.call(VolumeShow(group="g", volume="v", history=True)).history
    assert history
    return len(history.older)


def index_bytes(site: Site) -> tuple[int, int]:
    """Bytes in use within the index, and its file on the disk."""
    path = site.directory / "groups" / "g" / INDEX_FILE
    store = LmdbStore(path, ROOM_BYTES, TABLES, readonly=True)
    try:
        return store.space()[0], path.stat().st_blocks * 512
    finally:
        store.close()


def take_backups(site: Site, client: Client, log: WriteLog) -> dict[str, str]:
    """By id: what fio's part held when each was young."""
    taken = {}
    for _ in range(BACKUPS):
        log.wait_for(BETWEEN)
        name = client.call(BackupCreate(group="g")).id
        taken[name] = fio_digest(site, f"g/v@{name}")
    return taken


def delete_all(client: Client, names: list[str]) -> None:
    for name in names:
        client.call(BackupDelete(group="g", cut=CutBackup(backup_id=name), confirm=name))


def check_space_returns(a: Site, b: Site, delete: Callable[[], None]) -> None:
    """To the index at both sites, and if it is much, to the file system."""
    before = [index_bytes(site) for site in (a, b)]
    delete()
    a.farshore("wait", "g", "--timeout", "60")
    for site, (used, size) in zip((a, b), before, strict=True):
        _wait_for_less(site, 0, LEAST_FREED * used)
        if FULL:
            _wait_for_less(site, 1, LEAST_FREED * size)
        used_after, size_after = index_bytes(site)
        figures = f"{used / MIB:.1f} to {used_after / MIB:.1f} MiB used"
        print(f"{site.name}: index {figures}, file {size / MIB:.1f} to {size_after / MIB:.1f} MiB")


def _wait_for_less(site: Site, which: int, size_bytes: float) -> None:
    wait_until(lambda: index_bytes(site)[which] < size_bytes, 180)


def test_backups_under_a_verify_job(scratch: Path, tool: Callable[[str], str]) -> None:
    """Each is what it was once the journal that it was taken from has gone, at both sites; half of them
    deleted, the space comes back and the others stay what they were."""
    with sites(f"window_s = {WINDOW_S}\n") as (a, b), asking(a, b) as (at_a, at_b):
        start_pair(a, b, "g/v", VOLUME_BYTES)
        log = WriteLog(
            a.nbd_socket,
            "g/v",
            first=LOG_START // BLOCK_BYTES,
            count=LOG_BYTES // BLOCK_BYTES,
            seed=51,
            pause_s=0.001,
        )
        with verifying_host(a, tool("fio"), scratch) as end, log:
            began = time.monotonic()
            taken = take_backups(a, at_a, log)
            took_s = time.monotonic() - began
            wait_until(lambda: older_backups(at_a) == older_backups(at_b) == BACKUPS, 300 + 6 * WINDOW_S)
            truncated_s = time.monotonic() - began
            end()
        a.farshore("wait", "g", "--timeout", "60")
        print(f"{BACKUPS} backups in {took_s:.1f} s, truncated {truncated_s:.1f} s after the first began;")
        print(f"beside fio and {log.answered} writes of the oracle's")
        image = scratch / "image"
        names = list(taken)
        for site, every in ((a, 1), (b, AT_THE_OTHER)):
            replay = log.replay()
            for name in names[::every]:
                check_whole(site, f"g/v@{name}", log, replay, taken[name], image)

        gone, left = names[: BACKUPS // 2], names[BACKUPS // 2 :]
        check_space_returns(a, b, lambda: delete_all(at_a, gone))
        for site, every in ((a, 1), (b, AT_THE_OTHER)):
            replay = log.replay()
            for name in left[::every]:
                check_whole(site, f"g/v@{name}", log, replay, taken[name], image)
        a.farshore("backup", "show", "g", gone[0], exit_code=10)


def test_any_second_of_a_run(scratch: Path) -> None:
    """Every second of it can be read at both sites, and a sample holds just the writes of that moment."""
    with sites("") as (a, b), asking(a, b) as clients:
        start_pair(a, b, "g/v", 16 * MIB)
        log = WriteLog(a.nbd_socket, "g/v", first=0, count=1024, seed=52, pause_s=0.002)
        began_ns = time.time_ns()
        with log:
            wait_until(lambda: time.time_ns() > began_ns + (RUN_S + 1) * SECOND_NS, RUN_S + 60)
        a.farshore("wait", "g", "--timeout", "60")
        moments = [began_ns + (second + 1) * SECOND_NS for second in range(RUN_S)]
        sample = sorted(random.Random(53).sample(moments, min(SAMPLE, RUN_S)))
        for site, client in zip((a, b), clients, strict=True):
            replay = log.replay()
            for moment in moments:
                found = client.call(VolumeUri(group="g", volume="v", cut=CutTime(utc_ns=moment)))
                region = read(site, found.export, 0, 1024 * BLOCK_BYTES if moment in sample else BLOCK_BYTES)
                if moment not in sample:
                    continue
                number = log.newest(region)
                least, most = log.bounds_at(moment)
                assert least <= number <= most, f"second {moment} at {site.name}"
                assert region == replay.to(number), f"second {moment} at {site.name}"
        print(
            f"{RUN_S} seconds readable at both sites, {len(sample)} of them compared, {log.answered} writes"
        )
