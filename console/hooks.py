"""`farshore-hook`: ready-made freezes and thaws, to be named in a site's hooks or on the command line.

    farshore-hook fsfreeze DIR freeze|thaw
    farshore-hook postgres DIR freeze|thaw [--conninfo TEXT]
    farshore-hook qemu-agent SOCKET freeze|thaw [--timeout S]

Rules. A thaw succeeds where nothing is frozen, because it is run in every case. It is a program of its own
that imports little: hosts may stand still while it starts. With FARSHORE_WAIT set, a thaw waits for a line on
its standard input, or for its end. The file system that holds the data directory (FARSHORE_DATA) is never
frozen: the daemon that should thaw would stand still itself.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from protocol.limits import HOOK_TIMEOUT_MAX_S
from protocol.printable import printable

# linux/fs.h: _IOWR('X', 119, int), _IOWR('X', 120, int)
FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
AGENT_TIMEOUT_S = 8.0
AGENT_LINE_BYTES_MAX = 64 << 10
# Ends whatever half a message an earlier client left in the agent's parser (QEMU guest agent protocol).
SENTINEL = b"\xff"


class HookError(Exception):
    """What to tell the operator."""


def freeze_file_system(directory: str) -> None:
    """Write everything of the file system mounted there out, and hold its writers. Raises HookError."""
    if not os.path.ismount(directory):
        raise HookError(f"{directory} is no mount point: another file system would be frozen")
    data = os.environ.get("FARSHORE_DATA")
    if data and os.stat(data).st_dev == os.stat(directory).st_dev:
        raise HookError(f"{directory} holds the site's data directory {data}: the site would stand still")
    _ioctl(directory, FIFREEZE, "freeze")


def thaw_file_system(directory: str) -> None:
    """Let its writers go on; one that is not frozen is fine. Raises HookError."""
    _ioctl(directory, FITHAW, "thaw")


def checkpoint(conninfo: str) -> None:
    """Have PostgreSQL write its dirty pages, so that the freeze has little left to write and a start from the
    cut little to replay. Raises HookError."""
    words = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--command=CHECKPOINT"]
    words += [f"--dbname={conninfo}"] if conninfo else []
    try:
        ended = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError as error:
        raise HookError("psql is not installed (Debian: postgresql-client)") from error
    if ended.returncode != 0:
        raise HookError(f"CHECKPOINT: {ended.stderr.strip() or f'psql ended with {ended.returncode}'}")


class Agent:
    """A QEMU guest agent behind its unix socket (docs of QEMU: "QEMU Guest Agent Protocol Reference")."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        self._unread = b""
        try:
            self._socket.connect(path)
        except OSError as error:
            raise HookError(f"{path}: {error.strerror or error}") from error
        self._sync()

    def freeze(self) -> None:
        """Raises HookError, also if the guest froze nothing."""
        frozen = self._execute("guest-fsfreeze-freeze")
        if not isinstance(frozen, int) or frozen < 1:
            raise HookError(f"{self._path}: the guest froze no file system")

    def thaw(self) -> None:
        """Raises HookError."""
        self._execute("guest-fsfreeze-thaw")

    def close(self) -> None:
        """Let others talk to it."""
        self._socket.close()

    def _sync(self) -> None:
        """Answers to others may still be on their way: ours follows the delimiter and has our number."""
        number = int.from_bytes(os.urandom(3), "big")
        self._send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, before=SENTINEL)
        while True:
            self._read_until(SENTINEL)
            answer = self._answer()
            if answer.get("return") == number:
                return

    def _execute(self, command: str) -> object:
        self._send({"execute": command})
        answer = self._answer()
        if "error" in answer:
            error = answer["error"]
            said = error.get("desc") if isinstance(error, dict) else error
            raise HookError(f"{self._path}: {command}: {said}")
        return answer.get("return")

    def _send(self, message: dict[str, object], before: bytes = b"") -> None:
        try:
            self._socket.sendall(before + json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise HookError(f"{self._path}: {error.strerror or error}") from error

    def _answer(self) -> dict[str, object]:
        line = self._read_until(b"\n")
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise HookError(f"{self._path}: not an agent's answer: {line[:80]!r}") from error
        if not isinstance(answer, dict):
            raise HookError(f"{self._path}: not an agent's answer: {line[:80]!r}")
        return answer

    def _read_until(self, end: bytes) -> bytes:
        while end not in self._unread:
            try:
                part = self._socket.recv(4096)
            except TimeoutError as error:
                raise HookError(f"{self._path}: the guest's agent does not answer") from error
            except OSError as error:
                raise HookError(f"{self._path}: {error.strerror or error}") from error
            if not part:
                raise HookError(f"{self._path}: the connection was closed")
            self._unread += part
            if len(self._unread) > AGENT_LINE_BYTES_MAX:
                raise HookError(f"{self._path}: an answer without an end")
        found, _, self._unread = self._unread.partition(end)
        return found


def _ioctl(directory: str, request: int, verb: str) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise HookError(f"{directory}: {error.strerror}") from error
    try:
        fcntl.ioctl(descriptor, request, 0)
    except OSError as error:
        if request == FITHAW and error.errno == errno.EINVAL:
            return  # not frozen
        right = " (it takes CAP_SYS_ADMIN)" if error.errno == errno.EPERM else ""
        raise HookError(f"cannot {verb} {directory}: {error.strerror}{right}") from error
    finally:
        os.close(descriptor)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="farshore-hook", description="Hold hosts still for a backup.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, place, text in (
        ("fsfreeze", "DIR", "a mounted file system"),
        ("postgres", "DIR", "PostgreSQL, and the mounted file system that it is on"),
        ("qemu-agent", "SOCKET", "a QEMU guest, through its agent's unix socket"),
    ):
        words = kinds.add_parser(kind, help=text, description=f"Freeze or thaw {text}.")
        words.add_argument("place", metavar=place)
        words.add_argument("verb", choices=("freeze", "thaw"))
        if kind == "postgres":
            words.add_argument("--conninfo", default="", help="how psql reaches the server")
        if kind == "qemu-agent":
            words.add_argument(
                "--timeout", type=_seconds, default=AGENT_TIMEOUT_S, help="seconds for an answer"
            )
    return parser


def _seconds(text: str) -> float:
    """Raises ValueError, nan included: a socket takes neither that nor what is out of all bounds."""
    if not 0 < (value := float(text)) <= HOOK_TIMEOUT_MAX_S:
        raise ValueError(text)
    return value


def _carry_out(given: argparse.Namespace) -> None:
    freezing = given.verb == "freeze"
    if not freezing and os.environ.get("FARSHORE_WAIT"):
        sys.stdin.readline()
    if given.kind == "qemu-agent":
        agent = Agent(given.place, given.timeout)
        try:
            agent.freeze() if freezing else agent.thaw()
        finally:
            agent.close()
        return
    if not freezing:
        thaw_file_system(given.place)
        return
    if given.kind == "postgres":
        checkpoint(given.conninfo)
    freeze_file_system(given.place)


def main(words: Sequence[str] | None = None) -> int:
    """Freeze or thaw; 1 and a line on standard error if that failed."""
    given = _parser().parse_args(words)
    try:
        _carry_out(given)
    except HookError as error:
        print(f"farshore-hook: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
