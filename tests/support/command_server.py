"""`farshore` commands without the cost of starting Python: forked from a process that has loaded them all.

Loading was four fifths of the processor time of the tests with daemons. What a command is made of is all
there: a process of its own with its words, environment, directory and streams, the parser, the exit code. The
command as it is installed is tried by those tests that start it themselves (`farshore_command`).

    python -P -m tests.support.command_server NAME    serves at the abstract socket NAME until its input ends
    request    {"words", "environment", "directory"} as JSON, with the descriptors of both outputs
    answers    the process id, then the exit code, each 8 bytes
"""

from __future__ import annotations

import gc
import json
import os
import secrets
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from farshore.launch import find_own_packages

_ROOT = Path(__file__).resolve().parents[2]
_REQUEST_BYTES_MAX = 1 << 20
_NUMBER_BYTES = 8
_START_TIMEOUT_S = 60.0


def run_command(
    words: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """`farshore WORDS`, as `subprocess.run` does it: a CompletedProcess, or TimeoutExpired."""
    outputs = [os.memfd_create(name) for name in ("stdout", "stderr")]
    try:
        request = {"words": words, "environment": dict(environment), "directory": os.getcwd()}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(_server())
            socket.send_fds(connection, [json.dumps(request).encode()], outputs)
            pid = _number(connection)
            connection.settimeout(timeout_s)
            try:
                code = _number(connection)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(shlex.join(words), timeout_s) from None
        return subprocess.CompletedProcess(["farshore", *words], code, *map(_text, outputs))
    finally:
        for output in outputs:
            os.close(output)


@lru_cache(maxsize=1)
def _server() -> str:
    """The address of this process's server, which ends with it."""
    address = f"\0farshore-test-{os.getpid()}-{secrets.token_hex(8)}"
    words = [sys.executable, "-P", "-m", "tests.support.command_server", address[1:]]
    # It is never waited for: its input ends with this process.
    server = subprocess.Popen(
        words, stdin=subprocess.PIPE, cwd=_ROOT, env=os.environ | {"PYTHONPATH": str(_ROOT)}
    )
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.connect(address)
            except ConnectionRefusedError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                _SERVERS.append(server)
                return address


_SERVERS: list[subprocess.Popen[bytes]] = []


def _number(connection: socket.socket) -> int:
    answer = connection.recv(_NUMBER_BYTES)
    if len(answer) != _NUMBER_BYTES:
        raise AssertionError("the server of commands has ended")
    return int.from_bytes(answer, "little", signed=True)


def _text(output: int) -> str:
    with open(output, encoding="utf-8", closefd=False) as file:
        file.seek(0)
        return file.read()


class _Server:
    """One thread, so that a fork is whole; `run` returns in a command's own process, with its words."""

    def __init__(self, name: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(f"\0{name}")
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)

    def run(self) -> list[str] | None:
        """The words of the command that this process now is; None when nobody asks for commands any more."""
        while True:
            for key, _ in self._selector.select():
                if key.fd == 0:
                    return None
                if key.fileobj is self._listener:
                    words = self._begin(self._listener.accept()[0])
                    if words is not None:
                        return words
                else:
                    self._ended(key.fd, *key.data)

    def _begin(self, connection: socket.socket) -> list[str] | None:
        data, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_BYTES_MAX, 2)
        if not data:  # who only looks whether there is a server
            connection.close()
            return None
        pid = os.fork()
        if pid == 0:
            return self._become(json.loads(data), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(pid.to_bytes(_NUMBER_BYTES, "little"))
        self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
        return None

    def _become(self, request: dict[str, Any], descriptors: list[int]) -> list[str]:
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), *descriptors)):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        os.chdir(request["directory"])
        words: list[str] = request["words"]
        sys.argv = ["farshore", *words]
        return words

    def _ended(self, pidfd: int, pid: int, connection: socket.socket) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            connection.send(code.to_bytes(_NUMBER_BYTES, "little", signed=True))
        except OSError:
            pass  # it waits no longer
        connection.close()


def _main() -> int:
    find_own_packages()
    from console import cli, parser

    parser.commands_for()
    server = _Server(sys.argv[1])
    gc.collect()
    gc.freeze()
    words = server.run()
    return 0 if words is None else cli.main()


if __name__ == "__main__":
    sys.exit(_main())
