"""Giving up every file, TCP port and other process that is not held open already, by Landlock.

All that the kernel's version knows to forbid is forbidden, but what a rule allows beneath a place:

    version 1  opening, making, removing files       4  TCP: bind, connect
            2  linking across directories            5  ioctl of devices
            3  truncating                            6  abstract unix sockets, signals outside

It says nothing of unix sockets that have a path: the filter of system calls does.

Source: landlock(7); linux/landlock.h. The three calls have the same numbers on every architecture.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable
from struct import pack

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_RULE_PATH_BENEATH = 1
_ASK_VERSION = 1
# Bits that were known to each version, from the first on.
_FILE_BITS = (13, 14, 15, 15, 16)
_TCP_SINCE, _TCP_BITS = 4, 2
_SCOPE_SINCE, _SCOPE_BITS = 6, 2
# What a rule may allow.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, DEVICE_IOCTL = 1 << 14, 1 << 15


def version() -> int:
    """The kernel's version of Landlock; 0 if it has none or may not be asked."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), _ASK_VERSION)))


def ruleset(of: int) -> bytes:
    """The set without a rule for a kernel of version `of`, 1 or later."""
    out = pack("<Q", _file_rights(of))
    if of >= _TCP_SINCE:
        out += pack("<Q", _bits(_TCP_BITS))
    if of >= _SCOPE_SINCE:
        out += pack("<Q", _bits(_SCOPE_BITS))
    return out


def give_up_files(kept: Iterable[tuple[int, int]] = ()) -> None:
    """For this process, for good; it must have given up gaining rights. `kept`: a descriptor of a file or
    directory, and what may be done beneath it. Raises OSError."""
    known = version()
    if not known:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock")
    libc = ctypes.CDLL(None, use_errno=True)
    rules = ruleset(known)
    made = libc.syscall(_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    if made < 0:
        raise OSError(ctypes.get_errno(), "Landlock took no rules")
    for descriptor, rights in kept:
        rule = pack("<Qi", rights & _file_rights(known), descriptor)
        if libc.syscall(_ADD, made, _RULE_PATH_BENEATH, rule, 0):
            raise OSError(ctypes.get_errno(), "Landlock did not take a rule")
    # It stays open: one more descriptor that leads nowhere.
    if libc.syscall(_RESTRICT, made, 0):
        raise OSError(ctypes.get_errno(), "Landlock does not restrict this process")


def _file_rights(of: int) -> int:
    """All that a kernel of that version knows."""
    return _bits(_FILE_BITS[min(of, len(_FILE_BITS)) - 1])


def _bits(count: int) -> int:
    return (1 << count) - 1
