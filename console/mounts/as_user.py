"""The process that becomes a check as another user: all rights given up, and nothing left running behind it.

    python as_user.py UID GID GROUP,… [SOURCE TARGET]… -- PROGRAM ARG…

- It has mounts of its own (mount_namespaces(7)): each SOURCE, in a directory that only root may enter, is
  there at TARGET, for this process alone.
- It has processes of its own (pid_namespaces(7)): whatever the check starts, in a session of its own too as
  servers do, ends with the check.
- User, group and further groups are those given, effective and saved; no capability is left in any set, and
  none comes by a file that has some or a set-user-ID bit (PR_SET_NO_NEW_PRIVS). That root cannot be had back
  is tried.

Ends as the program does; with 126, and a line on standard error, if any of it cannot be done: then the
program was not started. Only root can run it. Imports nothing of ours: it is run by its path, without
site-packages.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

CANNOT = 126

CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITIES_VERSION = 0x20080522
CAPABILITIES = 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p]


class _CapabilityHeader(ctypes.Structure):
    """struct __user_cap_header_struct (capset(2))."""

    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


def _check(result: int, what: str) -> None:
    """Raises OSError."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mounts(pairs: list[tuple[str, str]]) -> None:
    _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "making mounts private")
    for source, target in pairs:
        found = _libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND | MS_REC, None)
        _check(found, f"mounting {target}")


def _drop(user: int, group: int, groups: list[int]) -> None:
    for number in range(CAPABILITIES):
        _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # EINVAL: the kernel has fewer
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    os.setgroups(groups)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    header = _CapabilityHeader(CAPABILITIES_VERSION, 0)
    # Effective, permitted and inheritable, in two halves.
    _check(_libc.capset(ctypes.byref(header), (ctypes.c_uint32 * 6)()), "giving up capabilities")
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "giving up new rights")
    if set(os.getresuid()) != {user} or set(os.getresgid()) != {group} or set(os.getgroups()) != set(groups):
        raise OSError(0, "the user or a group is another")
    if _libc.setuid(0) == 0 or _libc.setgid(0) == 0 or _libc.setgroups(0, None) == 0:
        raise OSError(0, "root's rights could be had back")


def _become_init(words: list[str]) -> int:
    """The first process of the new ones: its end is that of all others. Gives how the program ended."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    program = os.fork()
    if program == 0:
        os.execv(words[0], words)
    while True:
        ended, status = os.wait()
        if ended == program:
            return os.waitstatus_to_exitcode(status)


def main(words: list[str]) -> int:
    """See above."""
    before, program = words[: words.index("--")], words[words.index("--") + 1 :]
    user, group, groups = int(before[0]), int(before[1]), [int(each) for each in before[2].split(",")]
    try:
        _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWPID), "unshare")
        _mounts(list(zip(before[3::2], before[4::2], strict=True)))
        first = os.fork()
        if first == 0:
            _drop(user, group, groups)
            code = _become_init(program)
            os._exit(code if code >= 0 else 128 - code)
    except OSError as error:
        os.write(2, f"farshore: cannot become user {user}: {error.strerror or error}\n".encode())
        os._exit(CANNOT)
    _, status = os.waitpid(first, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
