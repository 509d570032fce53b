"""QEMU as a host: a machine that stands still with one disk, asked over QMP; and its block layer alone, which
waits for a server that comes back."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DISK = "disk"
WAIT_S = 20.0


class Machine:
    """A machine that never runs, with one virtio disk on an export."""

    def __init__(self, control: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(WAIT_S)
        self._socket.connect(str(control))
        self._lines = self._socket.makefile("rw")
        self._lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> Any:
        """A QMP command's answer: `return`, or AssertionError with QEMU's words."""
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        while True:
            answer = json.loads(self._lines.readline())
            if "error" in answer:
                raise AssertionError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]

    def io(self, words: str) -> None:
        """One of qemu-io's commands on the disk; its output goes where QEMU's does."""
        self.ask("human-monitor-command", **{"command-line": f'qemu-io {DISK} "{words}"'})

    @property
    def size_bytes(self) -> int:
        """What the guest sees."""
        nodes = self.ask("query-named-block-nodes")
        (size,) = (node["image"]["virtual-size"] for node in nodes if node["node-name"] == DISK)
        return int(size)

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()


def _nbd(server: Path, export: str) -> str:
    where = {"type": "unix", "path": str(server)}
    node = {"driver": "nbd", "node-name": DISK, "server": where, "export": export, "reconnect-delay": 60}
    return json.dumps(node)


@contextmanager
def _running(words: list[str], socket_path: Path) -> Iterator[None]:
    with socket_path.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + WAIT_S
        while not socket_path.exists():
            said = socket_path.with_suffix(".log").read_text()
            assert process.poll() is None, said
            assert time.monotonic() < until, said
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def machine(qemu: str, server: Path, export: str, directory: Path) -> Iterator[Machine]:
    """A machine with its disk on that export."""
    control = directory / "qmp"
    words = [
        qemu,
        "-M",
        "pc",
        "-display",
        "none",
        "-S",
        "-nodefaults",
        "-qmp",
        f"unix:{control},server=on,wait=off",
    ]
    words += ["-blockdev", _nbd(server, export), "-device", f"virtio-blk-pci,drive={DISK}"]
    with _running(words, control):
        found = Machine(control)
        try:
            yield found
        finally:
            found.close()


@contextmanager
def patient_export(daemon: str, server: Path, export: str, directory: Path) -> Iterator[str]:
    """The URI of the same export, through QEMU's storage daemon: requests wait until the server is back."""
    listener = directory / "patient"
    words = [daemon, "--blockdev", _nbd(server, export)]
    words += ["--nbd-server", f"addr.type=unix,addr.path={listener}"]
    words += ["--export", f"type=nbd,id=e,node-name={DISK},name=e,writable=on"]
    with _running(words, listener):
        yield f"nbd+unix:///e?socket={listener}"
