"""A real daemon under the notify protocol of systemd, and the unit that asks for it.

By default the journal that is recovered has 32 MiB; FARSHORE_FULL=1 takes 2 GiB.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from console.demo.host import Host
from tests.support.clients import call, succeed
from tests.support.notify_socket import NotifySocket
from tests.support.sites import ROOT, Site

FULL = os.environ.get("FARSHORE_FULL") == "1"
JOURNAL_BYTES = 2 << 30 if FULL else 32 << 20
WRITE_BYTES = 1 << 20
UNIT = ROOT / "packaging" / "systemd" / "farshore@.service"
EXTEND = "EXTEND_TIMEOUT_USEC="


def write(site: Site, size_bytes: int) -> None:
    """So many bytes of a volume of as many, durable."""
    site.create_volume("g/v", f"{size_bytes >> 20}M")
    payload = os.urandom(WRITE_BYTES)
    with Host(site.nbd_socket, "g/v") as host:
        host.write_all((at, payload) for at in range(0, size_bytes, WRITE_BYTES))
        host.flush()


def test_a_recovery_asks_for_time_and_the_loop_pings(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    write(site, JOURNAL_BYTES)
    site.kill()
    with NotifySocket(str(site.directory.parent / "notify")) as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", systemd.name)
        monkeypatch.setenv("WATCHDOG_USEC", "500000")
        site.start(wait=False)
        # As systemd counts: the start may take so long from here, and from each message that extends it.
        start_timeout_s = 30.0
        deadline = time.monotonic() + start_timeout_s
        before: list[str] = []
        while "READY=1" not in (told := systemd.take()):
            assert time.monotonic() < deadline, before
            before.append(told)
            if told.startswith(EXTEND):
                deadline = time.monotonic() + int(told.removeprefix(EXTEND).split()[0]) / 1e6
        assert any("STATUS=recovering g" in each for each in before), before
        assert all(each.startswith(EXTEND) for each in before), before
        assert "STATUS=a: 1 groups" in told
        site.wait_until_serving()
        pings = [systemd.take() for _ in range(3)]
        assert all(each.startswith("WATCHDOG=1") and EXTEND not in each for each in pings), pings
        assert site.stop() == 0
        assert any(each.startswith("STOPPING=1") for each in systemd.waiting())


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    for name in ("farshore@.service", "farshore@lon.service"):
        text = UNIT.read_text().replace("/usr/bin/farshore ", "/usr/bin/env farshore ")
        (tmp_path / name).write_text(text)
    done = call("systemd-analyze", "verify", "--man=no", tmp_path / "farshore@lon.service")
    assert done.returncode == 0, done.stderr
    assert "farshore@" not in done.stderr, done.stderr  # unknown settings are warnings
    succeed("systemd-analyze", "security", "--offline=true", "--threshold=30", tmp_path / "farshore@.service")
