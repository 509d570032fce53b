"""What an operator is told of errors of the machine."""

from __future__ import annotations

import errno
import os

import pytest

from protocol.errors import NoSpace, machine_refused, system_error


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "df -i"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "mount it for writing"),
        (errno.EIO, "dmesg"),
        (errno.EMFILE, "LimitNOFILE"),
        (errno.ESTALE, "mount"),
    ],
)
def test_errors_of_the_machine_say_what_mends_them(code: int, hint: str) -> None:
    error = OSError(code, os.strerror(code), "/srv/a/lock")
    said = system_error(error)
    assert machine_refused(error)
    assert hint in said.next_step
    assert said.subject == "/srv/a/lock"
    assert isinstance(said, NoSpace) == (code in (errno.ENOSPC, errno.EDQUOT))


def test_others_may_be_ours() -> None:
    assert not machine_refused(OSError(errno.EBADF, "closed"))
    assert not machine_refused(ValueError("28"))
    assert "ls -ld /a" in system_error(OSError(errno.EACCES, "no", "/a")).next_step
