"""Giving up everything that reading a file system does not need, before the first byte of it is looked at.

What parses a stranger's file system may be taken over by it. So it keeps the two pipes and the NBD connection
that it was given, whose handshake is done and which therefore reaches one export only; it cannot write a
file, start a program, gain rights or use much memory. Started by root it becomes nobody, sees an empty root
directory and no network; started by another user it stays that user.

Linux only. Source: prctl(2), setrlimit(2), unshare(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import tempfile

MEMORY_BYTES_MAX = 2 << 30
CPU_S_MAX = 24 * 3600
# One answer may not compute for longer than this; `renew_cpu` begins anew.
ANSWER_CPU_S = 120
FILES_OPEN_MAX = 32
_NOBODY = 65534

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000
_CLONE_NEWIPC = 0x08000000


def confine() -> None:
    """Everything at once; what was needed from the disk must have been imported before. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        # Without the right to do so (a container), the other fences must do.
        libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC)
        _empty_root()
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 0)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES_MAX),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, FILES_OPEN_MAX),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    renew_cpu()


def renew_cpu() -> None:
    """Another `ANSWER_CPU_S` of computing from now on; then the process is killed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime) + 1 + ANSWER_CPU_S
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (min(allowed, most), most))


def _empty_root() -> None:
    """A root directory that is empty and has no name any more."""
    path = tempfile.mkdtemp(prefix="farshore-empty-")
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(path)
    os.fchdir(held)
    os.chroot(".")
    os.close(held)
