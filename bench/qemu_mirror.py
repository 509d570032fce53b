"""QEMU's own mirror on one machine, as the thing to compare with.

    fio ── unix ── qemu-storage-daemon (raw file + blockdev-mirror) ── TCP loopback ── qemu-nbd (raw file)

`background` copies dirty chunks after acknowledging the write (near Farshore's async mode); `write-blocking`
acknowledges once the target has the write too (near its sync mode). Neither passes a host's flush on to the
target, and neither keeps history.

Two settings decide what is compared, so they are arguments and are printed with the figures:
- `granularity_bytes`: QEMU copies whole chunks, 64 KiB unless told. 4 KiB suits random 4 KiB writes far
  better (on a 2-core machine 12.9k instead of 7.5k writes/s) and is the default here: the stronger opponent.
- `link`: over TCP, write-blocking mode was seen to stall for 40 ms at times, over a unix socket never. The
  link of Farshore is TCP, so TCP is the default; the unix socket tells how much of a ratio is that stall.
  `tls` is TCP with TLS, by a key that both ends have: the link of Farshore is encrypted too.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.support.sites import free_port

CopyMode = Literal["background", "write-blocking"]
Link = Literal["tcp", "tls", "unix"]
READY_TIMEOUT_S = 120.0
QMP_TIMEOUT_S = 30.0


class Qmp:
    """A QEMU machine protocol connection: commands in order, events put aside."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(QMP_TIMEOUT_S)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self.events: list[dict[str, Any]] = []
        self._read()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: Any) -> Any:
        """Run one command; RuntimeError with QEMU's own words if it refuses."""
        request = {"execute": name, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            reply = self._read()
            if "error" in reply:
                raise RuntimeError(f"{name}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]
            self.events.append(reply)

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise RuntimeError("qemu-storage-daemon closed its monitor")
        reply: dict[str, Any] = json.loads(line)
        return reply


class QemuMirror:
    """Source and target of `size_bytes` under `directory`, mirrored and ready; a context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        size_bytes: int,
        copy_mode: CopyMode,
        granularity_bytes: int = 4096,
        link: Link = "tcp",
    ) -> None:
        self.directory = directory
        self.size_bytes = size_bytes
        self.copy_mode = copy_mode
        self.granularity_bytes = granularity_bytes
        self.link = link
        self.name = f"qemu {copy_mode}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._qmp: Qmp | None = None

    @property
    def uri(self) -> str:
        """Where fio writes."""
        return f"nbd+unix:///v?socket={self.directory / 'source.sock'}"

    @property
    def target(self) -> Path:
        """The mirror's copy."""
        return self.directory / "target.img"

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in (self.directory / "source.img", self.target):
            with path.open("wb") as image:
                image.truncate(self.size_bytes)
        # What QEMU looks for in the directory of its credentials, and whom it calls itself.
        (self.directory / "keys.psk").write_text(f"qemu:{secrets.token_hex(32)}\n")
        try:
            address = self._start_target()
            self._start_source()
            self._mirror(address)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End both processes; the images stay. Twice is fine."""
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._processes.clear()

    def pids(self) -> list[int]:
        """Of both processes."""
        return [process.pid for process in self._processes]

    def settle(self) -> float:
        """Wait until the target has everything; the seconds that it took."""
        began = time.monotonic()
        while self.behind_bytes() > 0:
            if time.monotonic() - began > READY_TIMEOUT_S:
                raise RuntimeError(f"the mirror is still {self.behind_bytes()} bytes behind")
            time.sleep(0.01)
        return time.monotonic() - began

    def behind_bytes(self) -> int:
        """What the job says is still to copy."""
        (job,) = self._monitor().command("query-block-jobs")
        return int(job["len"]) - int(job["offset"])

    def _monitor(self) -> Qmp:
        if self._qmp is None:
            raise RuntimeError("the mirror is not running")
        return self._qmp

    def _start_target(self) -> dict[str, str]:
        """Start qemu-nbd; its address as QMP takes it."""
        words = ["qemu-nbd", "--persistent", "--format=raw", "--shared=8", "--export-name=v"]
        deadline = time.monotonic() + READY_TIMEOUT_S
        if self.link == "unix":
            path = self.directory / "target.sock"
            self._spawn([*words, f"--socket={path}", str(self.target)])
            while not path.exists():
                if time.monotonic() > deadline:
                    raise RuntimeError("qemu-nbd did not start")
                time.sleep(0.02)
            return {"type": "unix", "path": str(path)}
        port = free_port()
        if self.link == "tls":
            words += [*self._credentials("server"), "--tls-creds=tls"]
        self._spawn([*words, "--bind=127.0.0.1", f"--port={port}", str(self.target)])
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return {"type": "inet", "host": "127.0.0.1", "port": str(port)}
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _credentials(self, end: str) -> list[str]:
        return ["--object", f"tls-creds-psk,id=tls,endpoint={end},dir={self.directory}"]

    def _start_source(self) -> None:
        monitor = self.directory / "qmp.sock"
        image = self.directory / "source.img"
        self._spawn(
            [
                "qemu-storage-daemon",
                "--chardev", f"socket,id=m,path={monitor},server=on,wait=off",
                "--monitor", "chardev=m",
                "--blockdev", f"driver=file,node-name=file,filename={image}",
                "--blockdev", "driver=raw,node-name=source,file=file",
                "--nbd-server", f"addr.type=unix,addr.path={self.directory / 'source.sock'}",
                "--export", "type=nbd,id=export,node-name=source,name=v,writable=on",
                *(self._credentials("client") if self.link == "tls" else ()),
            ]
        )  # fmt: skip
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self._qmp is None:
            try:
                self._qmp = Qmp(monitor)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _mirror(self, server: dict[str, str]) -> None:
        monitor = self._monitor()
        target = {"driver": "nbd", "node-name": "remote", "server": server, "export": "v"}
        tls = {"tls-creds": "tls"} if self.link == "tls" else {}
        monitor.command("blockdev-add", **target, **tls)
        monitor.command("blockdev-add", **{"driver": "raw", "node-name": "target", "file": "remote"})
        monitor.command(
            "blockdev-mirror",
            **{"job-id": "mirror", "device": "source", "target": "target"},
            **{"sync": "full", "copy-mode": self.copy_mode, "granularity": self.granularity_bytes},
        )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not monitor.command("query-block-jobs")[0]["ready"]:
            if time.monotonic() > deadline:
                raise RuntimeError("QEMU's mirror did not become ready")
            time.sleep(0.05)

    def _spawn(self, command: list[str]) -> None:
        with (self.directory / f"{os.path.basename(command[0])}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            )
