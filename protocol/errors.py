"""Errors that cross a boundary: every one names the object, the position where there is one, and the next
step.

Three families. `FarshoreError` is for operators: it carries the exit code and a hint, and travels over the
control socket as it is. `ProtocolError` is about bytes on a wire: `LocalProtocolError` is our misuse,
`RemoteProtocolError` the other side's. `Corruption` names stored bytes that cannot be what was written.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from shlex import quote


class ExitCode(IntEnum):
    """Exit codes of the command `farshore`; scripts depend on them (docs/errors.md)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    NOT_FOUND = 10
    BUSY = 11
    NOT_ALLOWED = 12
    WRONG_STATE = 13
    UNREACHABLE = 14
    UNSAFE = 20
    DIVERGED = 21
    TIMEOUT = 22
    TRIMMED = 23
    MISMATCH = 24
    INTERRUPTED = 130


class FarshoreError(Exception):
    """An error for an operator.

    `code` is a stable word (`not-found`), `subject` names the object (`vm1/root`), `position` a journal
    position as text where there is one, `next_step` the command or action to try.
    """

    exit_code: ExitCode = ExitCode.FAILED
    code: str = "failed"

    def __init__(self, message: str, *, subject: str = "", position: str = "", next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.position = position
        self.next_step = next_step

    def as_dict(self) -> dict[str, object]:
        """The shape of `errors` in `--json` output and in control replies."""
        return {
            "code": self.code,
            "exit_code": int(self.exit_code),
            "message": self.message,
            "object": self.subject,
            "position": self.position,
            "next": self.next_step,
        }


class UsageError(FarshoreError):
    """The words of the request do not make sense."""

    exit_code = ExitCode.USAGE
    code = "usage"


class NotFound(FarshoreError):
    """A named thing does not exist."""

    exit_code = ExitCode.NOT_FOUND
    code = "not-found"


class Busy(FarshoreError):
    """Something else holds the object."""

    exit_code = ExitCode.BUSY
    code = "busy"


class NotAllowed(FarshoreError):
    """The caller, peer or machine may not do this."""

    exit_code = ExitCode.NOT_ALLOWED
    code = "not-allowed"


class Locked(NotAllowed):
    """A retention lock holds it: nobody may give it up before the lock's time."""

    code = "locked"


class WrongState(FarshoreError):
    """The object is in a state in which this cannot be done."""

    exit_code = ExitCode.WRONG_STATE
    code = "wrong-state"


class Unreachable(FarshoreError):
    """No daemon answers there."""

    exit_code = ExitCode.UNREACHABLE
    code = "unreachable"


class Unsafe(FarshoreError):
    """Refused because it could lose data; the message says how to insist."""

    exit_code = ExitCode.UNSAFE
    code = "unsafe"


class Refused(FarshoreError):
    """Within the rules, but not possible as things stand; the message says why."""

    exit_code = ExitCode.WRONG_STATE
    code = "refused"


class Diverged(FarshoreError):
    """Both sites wrote after the same position."""

    exit_code = ExitCode.DIVERGED
    code = "diverged"


class TimedOut(FarshoreError):
    """What was waited for did not happen in time."""

    exit_code = ExitCode.TIMEOUT
    code = "timeout"


class Trimmed(FarshoreError):
    """The position is no longer retained."""

    exit_code = ExitCode.TRIMMED
    code = "trimmed"


class Mismatch(FarshoreError):
    """Two things that must be equal are not."""

    exit_code = ExitCode.MISMATCH
    code = "mismatch"


class NoSpace(FarshoreError):
    """The disk or the journal limit is reached; nothing acknowledged is lost."""

    exit_code = ExitCode.FAILED
    code = "no-space"


def system_error(error: OSError) -> FarshoreError:
    """What the system refused, and of which file, where nobody knew more to say."""
    name = error.filename
    path = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    path = path if isinstance(path, str) else ""  # of a call on an open file it is the descriptor, or None
    why = error.strerror or str(error)
    kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else FarshoreError
    look = f"`ls -ld {quote(str(path))}` shows what is there; " if path else ""
    mend = _MENDED_BY.get(error.errno or 0, f"{look}mend that")
    return kind(
        f"{path}: {why}" if path else f"this machine refuses: {why}",
        subject=path,
        next_step=f"{mend}, then give the command again",
    )


def machine_refused(error: BaseException) -> bool:
    """Whether an error is the machine's or its operator's, and no defect of ours."""
    return isinstance(error, OSError) and error.errno in _MENDED_BY


# What an operator does about errors of the machine, however we came to meet them.
_MENDED_BY = {
    errno.ENOSPC: "`df` and `df -i` show whether room or inodes are lacking: make some",
    errno.EDQUOT: "`quota` shows what is used: raise it, or make room",
    errno.EROFS: "`dmesg` says why the file system is read-only: check it, and mount it for writing",
    errno.EIO: "`dmesg` says what the disk reports: check or replace it",
    errno.ENODEV: "put the file system or the directory back",
    errno.ENXIO: "put the disk back",
    errno.ESTALE: "mount the file system again",
    errno.ENOTCONN: "mount the file system again",
    errno.ENOMEM: "give the machine or the service more memory",
    errno.EMFILE: "allow the daemon more open files (LimitNOFILE=, `ulimit -Hn`) and restart it",
    errno.ENFILE: "allow the machine more open files (fs.file-max)",
}


class Corruption(FarshoreError):
    """Stored bytes are not what was written. Never cut, never guessed around."""

    exit_code = ExitCode.MISMATCH
    code = "corruption"


ERROR_CLASSES: tuple[type[FarshoreError], ...] = (
    UsageError, NotFound, Busy, NotAllowed, Locked, WrongState, Unreachable, Unsafe, Refused, Diverged,
    TimedOut, Trimmed, Mismatch, NoSpace, Corruption,
)  # fmt: skip


def error_from_dict(fields: dict[str, object]) -> FarshoreError:
    """Rebuild an operator error from `as_dict`'s shape; an unknown code becomes a plain `FarshoreError`."""
    by_code = {cls.code: cls for cls in ERROR_CLASSES}
    cls = by_code.get(str(fields.get("code", "")), FarshoreError)
    return cls(
        str(fields.get("message", "")),
        subject=str(fields.get("object", "")),
        position=str(fields.get("position", "")),
        next_step=str(fields.get("next", "")),
    )


class ProtocolError(Exception):
    """Bytes on a wire that break its rules."""


class LocalProtocolError(ProtocolError):
    """We asked a wire to do what its state forbids: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The other side sent what the rules forbid."""
