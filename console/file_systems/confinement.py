"""Giving up everything that reading a file system does not need, before the first byte of it is looked at.

What parses a stranger's file system may be taken over by it. So it keeps the two pipes and the NBD connection
that it was given, whose handshake is done and which therefore reaches one export only. Three fences, each of
which would hold alone against most:

- rights: started by root it becomes nobody, sees an empty root directory and no network; started by another
  user it stays that user. Memory, computing time, descriptors and processes are bounded;
- files: Landlock, or a user namespace with an empty root directory, or (for root) that directory;
- system calls: a filter lets through what reading, writing and computing take. It opens no file, makes and
  connects no socket, starts nothing, reaches no other process.

Without the filter nothing is read: a reader that a user starts could otherwise open the user's files. A
missing fence around files is said.

Linux only. Source: prctl(2), setrlimit(2), unshare(2), user_namespaces(7), capset(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import tempfile
from collections.abc import Sequence
from struct import pack

from console.file_systems.landlock import give_up_files
from console.file_systems.syscall_filter import Call, filter_calls

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
_CLONE_NEWUSER = 0x10000000
_CAPABILITIES_VERSION = 0x20080522


def confine(more: Sequence[Call] = ()) -> str:
    """Everything at once, with the system calls of `more` let through, too; what was needed from the disk
    must have been imported before. Returns what is missing for a fence that could do without it, or an empty
    string. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    was_root = os.geteuid() == 0
    if was_root:
        # Without the right to do so (a container), the other fences must do.
        libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC)
        _empty_root()
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    missing = _fence_files(libc, has_empty_root=was_root)
    _prctl(libc, _PR_SET_DUMPABLE, 0)
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
    filter_calls(more)
    return missing


def renew_cpu() -> None:
    """Another `ANSWER_CPU_S` of computing from now on; then the process is killed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime) + 1 + ANSWER_CPU_S
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (min(allowed, most), most))


def _fence_files(libc: ctypes.CDLL, *, has_empty_root: bool) -> str:
    try:
        give_up_files()
    except OSError as error:
        if has_empty_root or _in_a_namespace(libc):
            return ""
        return f"{error.strerror}, and no user namespace may be made"
    return ""


def _in_a_namespace(libc: ctypes.CDLL) -> bool:
    """A user namespace in which there is an empty root directory, no network and no right."""
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC):
        return False
    try:
        _empty_root()
    except OSError:
        return False
    # Effective, permitted and inheritable, in two halves.
    return not libc.capset(pack("<Ii", _CAPABILITIES_VERSION, 0), bytes(24))


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _empty_root() -> None:
    """A root directory that is empty and has no name any more."""
    path = tempfile.mkdtemp(prefix="farshore-empty-")
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(path)
    os.fchdir(held)
    os.chroot(".")
    os.close(held)
