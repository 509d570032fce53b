"""A real daemon under the notify protocol of systemd, and the unit that asks for it.

By default the journal that is recovered has 32 MiB; FARSHORE_FULL=1 takes 2 GiB.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from console.demo.host import Host
from tests.support.clients import call, succeed
from tests.support.notify_socket import NotifySocket
from tests.support.sites import ROOT, Site

pytestmark = pytest.mark.usefixtures("as_installed")

FULL = os.environ.get("FARSHORE_FULL") == "1"
JOURNAL_BYTES = 2 << 30 if FULL else 32 << 20
WRITE_BYTES = 1 << 20
# As in the unit.
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 120.0
UNIT = ROOT / "packaging" / "systemd" / "farshore@.service"
EXTEND = "EXTEND_TIMEOUT_USEC="


def write(site: Site, size_bytes: int) -> None:
    """So many bytes of a volume of as many, durable."""
    site.create_volume("g/v", f"{size_bytes >> 20}M")
    payload = os.urandom(WRITE_BYTES)
    with Host(site.nbd_socket, "g/v") as host:
        host.write_all((at, payload) for at in range(0, size_bytes, WRITE_BYTES))
        host.flush()


def until_ready(systemd: NotifySocket) -> tuple[str, list[str], list[float]]:
    """The message with READY, those before it, and the seconds without any, from the start on. Fails where
    systemd would end the start: it may take so long, and so long from each message that extends it."""
    started = time.monotonic()
    deadline = started + START_TIMEOUT_S
    before: list[str] = []
    at = [started]
    while "READY=1" not in (told := systemd.take()):
        at.append(time.monotonic())
        assert at[-1] < deadline, before
        before.append(told)
        if told.startswith(EXTEND):
            deadline = at[-1] + int(told.removeprefix(EXTEND).split()[0]) / 1e6
    at.append(time.monotonic())
    return told, before, [later - earlier for earlier, later in itertools.pairwise(at)]


def until_ended(site: Site, systemd: NotifySocket) -> float:
    """Seconds from SIGTERM until the daemon has ended. Fails where systemd would kill it."""
    assert site.process is not None
    started = time.monotonic()
    deadline = started + STOP_TIMEOUT_S
    told: list[str] = []
    while site.process.poll() is None:
        for each in systemd.waiting():
            told.append(each)
            if EXTEND in each:
                deadline = time.monotonic() + int(each.split(EXTEND)[1].split()[0]) / 1e6
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    assert any(each.startswith("STOPPING=1") for each in [*told, *systemd.waiting()]), told
    return time.monotonic() - started


def test_a_recovery_asks_for_time_and_the_loop_pings(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    write(site, JOURNAL_BYTES)
    site.kill()
    with NotifySocket(str(site.directory.parent / "notify")) as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", systemd.name)
        monkeypatch.setenv("WATCHDOG_USEC", "500000")
        site.start(wait=False)
        told, before, gaps_s = until_ready(systemd)
        print(
            f"\n{JOURNAL_BYTES >> 20} MiB recovered in {sum(gaps_s):.1f} s; {len(before)} messages, ", end=""
        )
        print(f"{max(gaps_s):.1f} s without one at most")
        assert max(gaps_s) <= START_TIMEOUT_S / 2
        assert any("STATUS=recovering g" in each for each in before), before
        assert all(each.startswith(EXTEND) for each in before), before
        assert "STATUS=a: 1 groups" in told
        site.wait_until_serving()
        pings = [systemd.take() for _ in range(3)]
        assert all(each.startswith("WATCHDOG=1") and EXTEND not in each for each in pings), pings
        os.kill(site.pid, signal.SIGTERM)
        print(f"stopped in {until_ended(site, systemd):.1f} s")
        assert site.stop() == 0


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path, tool: Callable[[str], str]) -> None:
    analyze = tool("systemd-analyze")
    for name in ("farshore@.service", "farshore@lon.service"):
        text = UNIT.read_text().replace("/usr/bin/farshore ", "/usr/bin/env farshore ")
        (tmp_path / name).write_text(text)
    done = call(analyze, "verify", "--man=no", tmp_path / "farshore@lon.service")
    assert done.returncode == 0, done.stderr
    assert "farshore@" not in done.stderr, done.stderr  # unknown settings are warnings
    succeed(analyze, "security", "--offline=true", "--threshold=30", tmp_path / "farshore@.service")


def test_the_timer_of_drills_is_one_that_systemd_takes(tmp_path: Path, tool: Callable[[str], str]) -> None:
    for kind in ("service", "timer"):
        text = UNIT.with_name(f"farshore-drill@.{kind}").read_text()
        text = text.replace("/usr/bin/farshore ", "/usr/bin/env farshore ")
        for name in ("farshore-drill@", "farshore-drill@lon"):
            (tmp_path / f"{name}.{kind}").write_text(text)
    done = call(tool("systemd-analyze"), "verify", "--man=no", tmp_path / "farshore-drill@lon.timer")
    assert done.returncode == 0, done.stderr
    assert "farshore-drill@" not in done.stderr, done.stderr
