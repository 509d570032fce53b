"""A key as it is given: by a file, or by a person at a terminal. Never by the command line, which every user
of a machine can read.

It is in bytes that are overwritten when it is no longer needed. What the C library and the kernel copied on
the way is beyond reach.
"""

from __future__ import annotations

import os
import stat
import termios
from pathlib import Path
from shlex import quote

from protocol.errors import NotAllowed, NotFound, Refused, UsageError

SECRET_BYTES_MAX = 8 << 20  # as cryptsetup has it
PROMPT_BYTES_MAX = 4096
TERMINAL = "/dev/tty"


def wipe(secret: bytearray) -> None:
    """Overwrite it."""
    secret[:] = bytes(len(secret))


def from_file(path: Path) -> bytearray:
    """What a file, or a pipe such as `<(pass disk)`, holds: all of it. Raises NotFound; NotAllowed for a file
    that others may read or replace; UsageError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        why = f"the key file {path} cannot be read: {error.strerror}"
        kind = NotFound if isinstance(error, FileNotFoundError) else NotAllowed
        raise kind(why, subject=str(path)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISFIFO(status.st_mode):
            _require_private(path, status)
        secret = _all(descriptor, SECRET_BYTES_MAX)
    finally:
        os.close(descriptor)
    if not secret or len(secret) > SECRET_BYTES_MAX:
        wipe(secret)
        what = "is empty" if not secret else f"has more than {SECRET_BYTES_MAX >> 20} MiB"
        raise UsageError(f"the key file {path} {what}", subject=str(path))
    return secret


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"the key file {path} is no file", subject=str(path))
    if status.st_mode & 0o077:
        raise NotAllowed(
            f"the key file {path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
            subject=str(path),
            next_step=f"chmod 600 {quote(str(path))}",
        )
    if status.st_uid not in {0, os.geteuid()}:
        raise NotAllowed(
            f"the key file {path} belongs to user {status.st_uid}, who could change it",
            subject=str(path),
            next_step=f"have a file of your own, with mode 600, and not {path}",
        )


def _all(descriptor: int, most: int) -> bytearray:
    """Up to one byte more than `most`."""
    held = bytearray(64 << 10)
    done = 0
    while done <= most:
        if done == len(held):
            grown = bytearray(min(2 * len(held), most + 1))
            grown[:done] = held
            wipe(held)
            held = grown
        with memoryview(held) as view:
            count = os.readv(descriptor, [view[done:]])
        if not count:
            break
        done += count
    secret = held[:done]
    wipe(held)
    return secret


def from_prompt(name: str) -> bytearray:
    """What a person types at the terminal, which shows none of it. `name` is an export's. Raises Refused
    where nobody sits there."""
    if not os.isatty(0):
        raise Refused(
            f"{name} is encrypted (LUKS), and no key was given",
            subject=name,
            next_step="add --key-file FILE, or run it at a terminal, which asks for the passphrase",
        )
    terminal = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        before = termios.tcgetattr(terminal)
        silent = [*before]
        silent[3] &= ~(termios.ECHO | termios.ECHONL)
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        try:
            os.write(terminal, f"passphrase of {name.partition('@')[0]}: ".encode(errors="backslashreplace"))
            held = bytearray(PROMPT_BYTES_MAX)
            count = os.readv(terminal, [held])
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
            os.write(terminal, b"\n")
    finally:
        os.close(terminal)
    secret = held[:count]
    wipe(held)
    if secret.endswith(b"\n"):
        secret[-1:] = b""
    if not secret:
        raise UsageError("no passphrase was given", subject=name, next_step="--key-file FILE")
    return secret


class LuksKey:
    """The key of a command's volumes: of a file, or asked for when the first encrypted one is met."""

    def __init__(self, file: Path | None = None) -> None:
        """Raises as `from_file`, at once: before anything is done."""
        self._secret = from_file(file) if file is not None else None

    def secret(self, name: str) -> bytearray:
        """The key, which stays this object's. Raises Refused, UsageError."""
        if self._secret is None:
            self._secret = from_prompt(name)
        return self._secret

    @property
    def available(self) -> bool:
        """Whether there is one, or somebody to ask."""
        return self._secret is not None or os.isatty(0)

    def wipe(self) -> None:
        """Overwrite it; twice is fine."""
        if self._secret is not None:
            wipe(self._secret)
        self._secret = None
