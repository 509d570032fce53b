"""What systemd is told, through a real datagram socket: never waited for, and none from a stuck loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.service_manager import ServiceManager
from tests.support.notify_socket import NotifySocket

PID = 4711


class StillClock:
    """It stands where a test puts it."""

    now_s = 0.0

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self.now_s


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(str(tmp_path / "notify")) as found:
        yield found


def manager(systemd: NotifySocket, **more: str) -> tuple[ServiceManager, StillClock]:
    clock = StillClock()
    return ServiceManager({"NOTIFY_SOCKET": systemd.name} | more, clock.monotonic, PID), clock


def test_a_start_and_a_stop(systemd: NotifySocket) -> None:
    told, clock = manager(systemd)
    told.progress("recovering g")
    told.progress("recovering g", 5 << 20)  # too soon
    clock.now_s = 1.0
    told.progress("recovering g", 9 << 20)
    told.ready("lon: 1 groups")
    clock.now_s = 2.0
    told.progress("recovering h")
    told.reloading()
    told.ready("lon: 2 groups")
    told.stopping()
    clock.now_s = 3.0
    told.progress("last checkpoint of g")
    extend = "EXTEND_TIMEOUT_USEC=180000000"
    assert systemd.waiting() == [
        f"{extend}\nSTATUS=recovering g",
        f"{extend}\nSTATUS=recovering g, 9 MiB",
        "READY=1\nSTATUS=lon: 1 groups",
        "STATUS=recovering h",
        "RELOADING=1\nMONOTONIC_USEC=2000000",
        "READY=1\nSTATUS=lon: 2 groups",
        f"STOPPING=1\nSTATUS=stopping\n{extend}",
        f"{extend}\nSTATUS=last checkpoint of g",
    ]


def test_an_abstract_name() -> None:
    with NotifySocket(f"@farshore-test-{os.getpid()}") as systemd:
        manager(systemd)[0].ready("up")
        assert systemd.waiting() == ["READY=1\nSTATUS=up"]


def test_a_status_is_one_line(systemd: NotifySocket) -> None:
    manager(systemd)[0].ready("up\nMAINPID=1")
    assert systemd.waiting() == ["READY=1\nSTATUS=up MAINPID=1"]


@pytest.mark.parametrize("name", ["", "vsock:2:1", "relative", "/nowhere/at/all", "/" + "x" * 200, "@"])
def test_nobody_who_listens_changes_nothing(name: str) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"}, StillClock().monotonic, PID)
    told.progress("recovering g")
    told.ready("up")
    told.stopping()


def test_a_full_socket_delays_what_must_arrive_and_nothing_else(systemd: NotifySocket) -> None:
    told, _ = manager(systemd, WATCHDOG_USEC="200000")
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filler.setblocking(False)
    with filler, contextlib.suppress(BlockingIOError):
        while True:
            filler.sendto(b"STATUS=filler", systemd.name)
    told.ready("up")
    assert set(systemd.waiting()) == {"STATUS=filler"}

    async def tick() -> None:
        told.begin(asyncio.get_running_loop(), lambda: "up")
        told.close()

    asyncio.run(tick())
    assert systemd.waiting() == ["READY=1\nSTATUS=up", "WATCHDOG=1\nSTATUS=up"]


def test_pings_come_from_the_loop(systemd: NotifySocket) -> None:
    told, _ = manager(systemd, WATCHDOG_USEC="200000", WATCHDOG_PID=str(PID))

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        told.begin(loop, lambda: "up")
        told.ready("up")
        got = [await loop.run_in_executor(None, systemd.take) for _ in range(4)]
        told.close()
        return got

    first, ready, *pings = asyncio.run(run())
    assert first == "EXTEND_TIMEOUT_USEC=180000000\nWATCHDOG=1"
    assert ready.startswith("READY=1\n")
    assert pings == ["WATCHDOG=1\nSTATUS=up", "WATCHDOG=1"]


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(PID)}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "1"}, 0.1),
        ({"WATCHDOG_USEC": "0"}, 0.0),
        ({"WATCHDOG_USEC": "-1"}, 0.0),
        ({"WATCHDOG_USEC": "9" * 40}, 0.0),
        ({"WATCHDOG_USEC": "²"}, 0.0),
        ({}, 0.0),
    ],
)
def test_when_a_watchdog_runs(systemd: NotifySocket, environment: dict[str, str], watchdog_s: float) -> None:
    assert manager(systemd, **environment)[0].watchdog_s == watchdog_s
