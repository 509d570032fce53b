"""A program of QEMU's with as little as it needs to read or write an image that somebody else may have made.

It may be led astray by what is in the image. So before it begins, this process, which becomes it, keeps

- the files that it was given as open descriptors, and the programs and libraries of the system, by Landlock;
  no TCP, no signals to others. A kernel without Landlock leaves it the files that its user can read: names
  in an image are looked at before (console/images/backing_chain.py);
- of root's rights only that to open those files: it is nobody, without network;
- so much memory and computing time, and no file longer than what it says where it only reads;
- its parent: it is killed with that.

It serves on the socket that it was given as a service manager would do it (sd_listen_fds(3)).

python -P …/farshore/launch.py console.images.fenced SOCKET READ,… WRITE,… PARENT PROGRAM ARG…

Linux only. Source: prctl(2), capabilities(7), landlock(7), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
import sys
from contextlib import suppress
from struct import pack

from console.file_systems.landlock import (
    DEVICE_IOCTL,
    EXECUTE,
    READ_DIRECTORY,
    READ_FILE,
    TRUNCATE,
    WRITE_FILE,
    give_up_files,
)

MEMORY_BYTES_MAX = 4 << 30
CPU_S_MAX = 24 * 3600
FILES_OPEN_MAX = 512
# What it says of an error is a file, too.
SAID_BYTES_MAX = 64 << 10
SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/urandom", "/sys/devices/system")

_SOCKET = 3  # where sd_listen_fds(3) has the first one
_NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 8, 38, 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_CLONE_NEWNET, _CLONE_NEWIPC = 0x40000000, 0x08000000
_CAPABILITIES_VERSION = 0x20080522


def main(words: list[str]) -> None:
    """Never returns: becomes the program. OSError if a fence that must be there is not to be had."""
    served, parent = int(words[0]), int(words[3])
    reads, writes = ([int(each) for each in part.split(",") if each] for part in words[1:3])
    program = words[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        # Without the right to do so (a container), the other fences must do.
        libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC)
        _become_nobody(libc, _CAP_DAC_OVERRIDE if writes else _CAP_DAC_READ_SEARCH)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _fence_files(reads, writes)
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES_MAX),
        (resource.RLIMIT_CPU, CPU_S_MAX),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, FILES_OPEN_MAX),
        *(() if writes else ((resource.RLIMIT_FSIZE, SAID_BYTES_MAX),)),
    ):
        resource.setrlimit(what, (limit, limit))
    os.dup2(served, _SOCKET, inheritable=True)
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)
    environment = {"PATH": os.defpath, "LC_ALL": "C", "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    os.execve(program[0], program, environment)


def _become_nobody(libc: ctypes.CDLL, kept: int) -> None:
    """Another user, with one right of root's also in the program that this becomes."""
    _prctl(libc, _PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    # Effective, permitted and inheritable, in two halves.
    rights = pack("<6I", 1 << kept, 1 << kept, 1 << kept, 0, 0, 0)
    if libc.capset(pack("<Ii", _CAPABILITIES_VERSION, 0), rights):
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, kept)


def _fence_files(reads: list[int], writes: list[int]) -> None:
    kept = [(each, READ_FILE | _of_device(each)) for each in reads]
    kept += [(each, READ_FILE | WRITE_FILE | TRUNCATE | _of_device(each)) for each in writes]
    # QEMU opens it for writing to find out whether files can be locked; without that it locks none.
    kept.append((os.open(os.devnull, os.O_PATH | os.O_CLOEXEC), READ_FILE | WRITE_FILE))
    for path in SYSTEM:
        with suppress(FileNotFoundError):
            found = os.open(path, os.O_PATH | os.O_CLOEXEC)
            directory = stat.S_ISDIR(os.fstat(found).st_mode)
            kept.append((found, READ_FILE | EXECUTE | (READ_DIRECTORY if directory else 0)))
    with suppress(OSError):
        give_up_files(kept)


def _of_device(descriptor: int) -> int:
    return DEVICE_IOCTL if stat.S_ISBLK(os.fstat(descriptor).st_mode) else 0


def _prctl(libc: ctypes.CDLL, option: int, *values: int) -> None:
    padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    if libc.prctl(option, *padded):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    main(sys.argv[1:])
