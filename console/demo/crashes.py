"""The demo's end: each daemon killed with kill -9 under writes, then every acknowledged write looked for."""

from __future__ import annotations

import random
import subprocess
import tempfile
import threading

from console.commands.job import job_result
from console.demo.host import Host, Ledger
from console.demo.report import Step
from console.demo.sites import GROUP, DemoSite
from console.demo.tools import fio_words, identical
from console.demo.writing import FILES, FIO_SIZE, SCRATCH, Stage, position
from console.figures import size_text
from console.local_time import pause
from protocol.commands.event import Events
from protocol.commands.job import JobWatch
from protocol.commands.journal import JournalShow
from protocol.commands.verify import VerifyResult, VerifyStart
from protocol.commands.volume import VolumeCreate
from protocol.errors import FarshoreError
from protocol.limits import BLOCK_BYTES

LEDGER = "ledger"
LEDGER_BYTES = 64 << 20
FIO_S = 6
FIO_GRACE_S = 60.0
KILL_AFTER_S = 2.0
AWAY_S = 1.5
KILLS = 3
IN_FLIGHT = 128
BURST = 32
KILL_EARLIEST_S = 0.2
KILL_SPREAD_S = 0.8


def kill_secondary(stage: Stage, step: Step) -> None:
    """The secondary dies under fio's writes at the primary, and catches up with what it missed."""
    primary, secondary = stage.primary, stage.secondary
    since = primary.call(Events()).next
    options = [
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=16",
        f"--size={FIO_SIZE}",
        "--rate_iops=2500",
        "--end_fsync=1",
    ]
    words = fio_words(primary.uri(SCRATCH), "steady", *options, "--time_based", f"--runtime={FIO_S}")
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(words, stdout=said, stderr=said, cwd=stage.directory) as fio:
            try:
                pause(KILL_AFTER_S)
                running = fio.poll() is None
                step.command(
                    f"kill -9 {secondary.pid}   (site {secondary.name}, while fio writes at {primary.name})"
                )
                secondary.kill()
                pause(AWAY_S)
                step.command(f"farshore site run {secondary.directory}")
                secondary.start()
                code = fio.wait(FIO_GRACE_S)
            finally:
                fio.kill()
        said.seek(0)
        text = said.read().decode(errors="replace")
    unnoticed = running and code == 0 and "err= 0" in text
    step.proof("killed while fio wrote at the primary, and fio saw no error", unnoticed)
    primary.wait_state("paired")
    end = primary.wait_durable().position
    resumed = _resumed_at(primary, since)
    sent_bytes = int(end.rpartition(":")[2]) - int(resumed.rpartition(":")[2])
    total_bytes = int(end.rpartition(":")[2])
    step.proof(
        "caught up from where it was killed, no full copy",
        0 < sent_bytes < total_bytes // 2,
        f"{size_text(sent_bytes)} of {size_text(total_bytes)}",
    )
    _compare(stage, step, SCRATCH, end)


def _resumed_at(primary: DemoSite, since: int) -> str:
    """Where the last session with the peer began to ship."""
    events = primary.call(Events(since=since)).events
    sessions = [event.position for event in events if event.kind == "pair.session"]
    if not sessions:
        raise FarshoreError("the primary reports no new session with its peer", subject=GROUP)
    return sessions[-1]


def kill_primary(stage: Stage, step: Step, rng: random.Random) -> None:
    """The primary dies under writes, three times; every acknowledged write is counted afterwards."""
    primary = stage.primary
    primary.call(VolumeCreate(group=GROUP, volume=LEDGER, size_bytes=LEDGER_BYTES))
    ledger = Ledger(LEDGER_BYTES // BLOCK_BYTES, rng)
    with _host(primary) as host:
        ledger.fill(host)
    for number in range(1, KILLS + 1):
        before = ledger.acknowledged
        step.command(f"kill -9 {primary.pid}   (site {primary.name}, in the middle of random writes)")
        unanswered = _write_until_killed(primary, ledger, rng)
        primary.start()
        with _host(primary) as host:
            wrong = ledger.check(host)
        text = f"{ledger.acknowledged - before} acknowledged, {unanswered} open" if not wrong else wrong[0]
        step.proof(f"kill {number}: every acknowledged write is there", not wrong, text)
    primary.wait_state("paired")
    end = primary.wait_durable().position
    step.proof("paired again, everything durable at both sites", True, f"up to {end}")
    for volume in (LEDGER, SCRATCH, FILES):
        _compare(stage, step, volume, end)


def _write_until_killed(primary: DemoSite, ledger: Ledger, rng: random.Random) -> int:
    """Write without a pause until a kill -9 at a random moment, and take what had been answered by then; the
    number of writes that were not."""
    host = _host(primary)
    moment = threading.Timer(KILL_EARLIEST_S + rng.random() * KILL_SPREAD_S, primary.shoot)
    moment.daemon = True
    moment.start()
    try:
        while True:
            ledger.send(host, BURST)
            ledger.take_replies(host, IN_FLIGHT - BURST)
    except OSError:
        pass  # Killed. What it had answered can still be read.
    try:
        ledger.take_replies(host, 0)
    except OSError:
        pass
    primary.kill()
    host.close()
    return ledger.forget_unanswered()


def _host(primary: DemoSite) -> Host:
    return Host(primary.nbd_socket, f"{GROUP}/{LEDGER}")


def _compare(stage: Stage, step: Step, volume: str, cut: str) -> None:
    live, held = stage.primary.uri(volume), stage.secondary.uri(volume, position(cut))
    step.proof(f"secondary's {volume} at that cut equal to the live volume",
               *identical(live, held, cwd=stage.directory))  # fmt: skip


def both_journals(stage: Stage, step: Step) -> None:
    """Every frame and every version of both sites read and checked; the journals end in one digest."""
    last = []
    for site in (stage.primary, stage.secondary):
        step.command(f"farshore verify {GROUP} --deep --site {site.directory}")
        job = site.call(VerifyStart(group=GROUP))
        while job.state == "running":
            job = site.call(JobWatch(job=job.job, since=job.serial, wait_s=5.0))
        data = job_result(job, VerifyResult) if job.state == "done" else None
        counts = (
            f"{data.frames} frames, {size_text(data.bytes)}, {data.versions} versions" if data else job.state
        )
        step.proof(f"journal and index of {site.name} sound", data is not None and data.ok, counts)
        last.append(site.call(JournalShow(group=GROUP, limit=1)).frames[-1])
    one, other = last
    same = (one.position, one.digest) == (other.position, other.digest)
    step.proof("both end at one position with one digest", same, f"{one.position} {one.digest[:16]}…")
