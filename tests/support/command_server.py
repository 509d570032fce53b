"""`farshore` commands and daemons without the cost of starting Python: forked from what has loaded them all.

Loading was four fifths of the processor time of the tests with daemons. All that makes a process is there:
its id, words, environment, directory and streams, the parser, the exit code; a daemon leads a session of its
own and dies by kill -9. The command as it is installed is tried by those tests that start it themselves
(`farshore_command`), the daemon's start by those with the fixture `as_installed`. A command that is told of
the daemons' server has it fork what it would start as `python -m daemon`, too: `site init` and its like.

    python -P -m tests.support.command_server KIND NAME  serves at the abstract socket NAME to its input's end
    KIND       "command": `farshore`; "daemon": what `farshore site run` becomes
    request    {"words", "environment", "directory", "daemons"} as JSON, with the descriptors of both outputs;
               "daemons": the address of their server, or null
    answers    the process id with a pidfd, then the exit code, each 8 bytes
"""

from __future__ import annotations

import atexit
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
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from farshore.children import child_words
from farshore.launch import find_own_packages

COMMAND = "command"
DAEMON = "daemon"
_ROOT = Path(__file__).resolve().parents[2]
_REQUEST_BYTES_MAX = 1 << 20
_NUMBER_BYTES = 8
_START_TIMEOUT_S = 60.0


class ServedProcess:
    """A process of a server: what is used of a `Popen`. A thread may signal it while another one waits."""

    def __init__(
        self,
        server: str,
        words: Sequence[str],
        environment: Mapping[str, str],
        outputs: Sequence[int],
        daemons: str | None = None,
    ) -> None:
        place = {"environment": dict(environment), "directory": os.getcwd()}
        request = {"words": words, "daemons": daemons, **place}
        self._words = words
        self._lock = threading.Lock()
        self._code: int | None = None
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(server)
        socket.send_fds(self._connection, [json.dumps(request).encode()], outputs)
        answer, descriptors, _, _ = socket.recv_fds(self._connection, _NUMBER_BYTES, 1)
        self.pid = _number(answer)
        (self._pidfd,) = descriptors

    def poll(self) -> int | None:
        """Its exit code, if it has ended; below zero by a signal."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; subprocess.TimeoutExpired."""
        if self._code is None:
            self._connection.settimeout(timeout)
            try:
                answer = self._connection.recv(_NUMBER_BYTES)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(shlex.join(self._words), timeout or 0) from None
            with self._lock:
                self._code = _number(answer)
                os.close(self._pidfd)
            self._connection.close()
        return self._code

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        with self._lock:
            if self._code is None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


def run_command(
    words: Sequence[str], environment: Mapping[str, str], timeout_s: float, *, forks_daemons: bool
) -> subprocess.CompletedProcess[str]:
    """`farshore WORDS`, as `subprocess.run` does it: a CompletedProcess, or TimeoutExpired."""
    daemons = server_of(DAEMON) if forks_daemons else None
    done = _run_served(server_of(COMMAND), words, environment, timeout_s, daemons)
    return subprocess.CompletedProcess(["farshore", *words], done.returncode, done.stdout, done.stderr)


def _run_served(
    server: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    timeout_s: float | None,
    daemons: str | None = None,
) -> subprocess.CompletedProcess[str]:
    outputs = [os.memfd_create(name) for name in ("stdout", "stderr")]
    try:
        process = ServedProcess(server, words, environment, outputs, daemons)
        try:
            code = process.wait(timeout_s)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(words, code, *map(_text, outputs))
    finally:
        for output in outputs:
            os.close(output)


@lru_cache(maxsize=2)
def server_of(kind: str) -> str:
    """The address of this process's server of a kind, which ends with it."""
    address = f"\0farshore-test-{os.getpid()}-{secrets.token_hex(8)}"
    words = [sys.executable, "-P", "-m", "tests.support.command_server", kind, address[1:]]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    # It is never waited for: its input ends with this process. In a session of its own it outlives a Ctrl-C
    # until daemons are stopped.
    server = subprocess.Popen(
        words, stdin=subprocess.PIPE, cwd=_ROOT, env=environment, start_new_session=True
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


def _number(answer: bytes) -> int:
    if len(answer) != _NUMBER_BYTES:
        raise AssertionError("the server of commands has ended")
    return int.from_bytes(answer, "little", signed=True)


def _text(output: int) -> str:
    with open(output, encoding="utf-8", closefd=False) as file:
        file.seek(0)
        return file.read()


class _Server:
    """One thread, so that a fork is whole; `run` returns in a process that was asked for, with its words."""

    def __init__(self, kind: str, name: str) -> None:
        self._leads_session = kind == DAEMON
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(f"\0{name}")
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)

    def run(self) -> dict[str, Any] | None:
        """The request of the process that this one now is; None when nobody asks for any more."""
        while True:
            for key, _ in self._selector.select():
                if key.fd == 0:
                    return None
                if key.fileobj is self._listener:
                    request = self._begin(self._listener.accept()[0])
                    if request is not None:
                        return request
                else:
                    self._ended(key.fd, *key.data)

    def _begin(self, connection: socket.socket) -> dict[str, Any] | None:
        data, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_BYTES_MAX, 2)
        if not data:  # who only looks whether there is a server
            connection.close()
            return None
        pid = os.fork()
        if pid == 0:
            return self._become(json.loads(data), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        pidfd = os.pidfd_open(pid)
        socket.send_fds(connection, [pid.to_bytes(_NUMBER_BYTES, "little")], [pidfd])
        self._selector.register(pidfd, selectors.EVENT_READ, (pid, connection))
        return None

    def _become(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        if self._leads_session:
            os.setsid()
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), *descriptors)):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(request["environment"])
        time.tzset()
        os.chdir(request["directory"])
        return request

    def _ended(self, pidfd: int, pid: int, connection: socket.socket) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            connection.send(code.to_bytes(_NUMBER_BYTES, "little", signed=True))
        except OSError:
            pass  # it waits no longer
        connection.close()


def _load(kind: str) -> Callable[[], int]:
    """What a process of this kind runs, with all that it needs loaded."""
    find_own_packages()
    if kind == DAEMON:
        import daemon.new_site
        import daemon.service
        from daemon import __main__ as program

        assert daemon.service, "what `run` loads"
        assert daemon.new_site, "what `init` loads"
        return program.main
    from console import cli, parser

    parser.commands_for()
    return cli.main


def _fork_daemons(server: str) -> None:
    """From now on this process has the server fork what it would run as `python -m daemon`; all other
    programs, and children of another user, it starts."""
    start, daemon_words = subprocess.run, child_words(DAEMON)

    def run(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        count = len(daemon_words)
        if list(words[:count]) != daemon_words or options.get("user") is not None:
            return start(words, **options)
        return _run_served(server, words[count:], os.environ, timeout_s=None)

    subprocess.run = run  # type: ignore[assignment]


def _main(kind: str, name: str) -> int:
    run = _load(kind)
    server = _Server(kind, name)
    gc.collect()
    gc.freeze()
    request = server.run()
    if request is None:
        return 0
    if request["daemons"] is not None:
        _fork_daemons(request["daemons"])
    words: list[str] = request["words"]
    # As `farshore` and its launcher leave it.
    sys.argv = ["farshore" if kind == COMMAND else kind, *words]
    code = run()
    # A daemon that ran shows by its end that nothing keeps it.
    if kind == COMMAND or words[0] != "run":
        _end(code)
    return code


def _end(code: int) -> NoReturn:
    """As an interpreter ends, less the last step, which takes all modules apart: that was half of what most
    commands cost."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
