"""What the service manager is told: sd_notify(3), where systemd started this process.

One datagram a message, to the socket that NOTIFY_SOCKET names: READY, STATUS, WATCHDOG, RELOADING, STOPPING,
and EXTEND_TIMEOUT_USEC while a start or a stop takes long. Sending never waits and never fails the daemon;
what must arrive, and found the socket full, is sent again with the next tick.

Ticks come from the loop, so that none come from one that is stuck. Work that holds the loop for long calls
`progress` as it gets on: a recovery that reads frames is alive, one that hangs in a read is not.
"""

from __future__ import annotations

import asyncio
import enum
import os
import socket
from collections.abc import Callable, Mapping

from daemon.site import Site

TICK_S = 5.0
PROGRESS_EVERY_S = 1.0
# Longer than one step without progress may take: making the newest 256 MiB of a journal durable.
EXTEND_TIMEOUT_S = 180
# As in a unit's `WatchdogSec`; below it, pings would take the processor.
WATCHDOG_MIN_S = 0.1
US_PER_S = 1_000_000


class _Phase(enum.Enum):
    STARTING = enum.auto()
    SERVING = enum.auto()
    STOPPING = enum.auto()


class ServiceManager:
    """The side of sd_notify that sends. Without NOTIFY_SOCKET in `environment` it does nothing. `monotonic`
    gives the seconds of CLOCK_MONOTONIC."""

    def __init__(self, environment: Mapping[str, str], monotonic: Callable[[], float], pid: int) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._monotonic = monotonic
        self.watchdog_s = _watchdog_s(environment, pid) if self._address else 0.0
        self._unsent: list[str] = []  # what must arrive
        self._phase = _Phase.STARTING
        self._status = ""
        self._progress_at = float("-inf")
        self._tick: asyncio.TimerHandle | None = None

    def begin(self, loop: asyncio.AbstractEventLoop, status: Callable[[], str]) -> None:
        """Tick on the loop until `close`. `status` says what the daemon does, once it is ready."""
        if not self._address:
            return
        every_s = min(TICK_S, self.watchdog_s / 2 or TICK_S)

        def tick() -> None:
            self._tick = loop.call_later(every_s, tick)
            # A start that waits for peers ends by itself. A stop that nothing gets on with is to be ended.
            said = status() if self._phase is _Phase.SERVING else ""
            self._send(self._alive(said, extend=self._phase is _Phase.STARTING))

        tick()

    def close(self) -> None:
        """Tick no more."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def progress(self, what: str, done_bytes: int = 0) -> None:
        """Something that holds the loop got on. Cheap: at most one message a second."""
        if not self._address or self._monotonic() < self._progress_at + PROGRESS_EVERY_S:
            return
        self._progress_at = self._monotonic()
        said = f"{what}, {done_bytes >> 20} MiB" if done_bytes else what
        self._send(self._alive(said, extend=self._phase is not _Phase.SERVING))

    def ready(self, status: str) -> None:
        """The site serves."""
        self._phase = _Phase.SERVING
        self._must_send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """The settings are read again; `ready` follows."""
        self._must_send(f"RELOADING=1\nMONOTONIC_USEC={int(self._monotonic() * US_PER_S)}")

    def stopping(self) -> None:
        """The site stops."""
        self._phase = _Phase.STOPPING
        self._must_send(f"STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC={EXTEND_TIMEOUT_S * US_PER_S}")

    def _alive(self, status: str, *, extend: bool) -> str:
        lines = [f"EXTEND_TIMEOUT_USEC={EXTEND_TIMEOUT_S * US_PER_S}"] if extend else []
        if self.watchdog_s:
            lines.append("WATCHDOG=1")
        if status and status != self._status:
            self._status = status
            lines.append(f"STATUS={_line(status)}")
        return "\n".join(lines)

    def _must_send(self, text: str) -> None:
        self._unsent.append(text)
        self._send("")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                while self._unsent:
                    sock.sendto(self._unsent[0].encode(), self._address)
                    del self._unsent[0]
                if text:
                    sock.sendto(text.encode(), self._address)
            except BlockingIOError:
                pass  # full; what must arrive is kept
            except OSError:
                self._unsent.clear()  # nobody is there


def status_line(site: Site) -> str:
    """What `systemctl status` shows of a site that serves."""
    said = f"{site.config.name}: {len(site.groups)} groups"
    failed = len(site.damaged) + sum(1 for group in site.groups.values() if group.failed)
    return f"{said}, {failed} of them not served: see `farshore status`" if failed else said


def _address(name: str) -> bytes:
    """The socket's address: a path, or after `@` an abstract name; nothing for any other."""
    raw = os.fsencode(name)
    if raw.startswith(b"@"):
        return b"\0" + raw[1:]
    return raw if raw.startswith(b"/") else b""


def _watchdog_s(environment: Mapping[str, str], pid: int) -> float:
    """After how many seconds without a ping this process is ended; 0: never (sd_watchdog_enabled(3))."""
    text = environment.get("WATCHDOG_USEC", "")
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    if not (text.isascii() and text.isdigit() and len(text) < 18 and int(text)):
        return 0.0
    return max(WATCHDOG_MIN_S, int(text) / US_PER_S)


def _line(text: str) -> str:
    return " ".join(text.split())
