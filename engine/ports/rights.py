"""What a child of the daemon gives up before it begins: rights that its work does not need.

Linux only. Source: prctl(2), capabilities(7), capset(2).
"""

from __future__ import annotations

import ctypes
import os
import pathlib

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
# Version 3: two words of 32 bits for each of effective, permitted and inheritable.
_CAPABILITY_VERSION = 0x20080522
# The blocks that a file system keeps for root: a checkpoint on a nearly full disk may need them.
_CAP_SYS_RESOURCE = 24


def keep_out_others() -> None:
    """Nobody but root reads this process's memory or attaches to it. Raises OSError."""
    _prctl(_PR_SET_DUMPABLE, 0)


def give_up_rights(directory: pathlib.Path) -> None:
    """Keep what it takes to work on the files of `directory`, for good: no rights by starting other programs,
    and none of root's over others' files, devices, network and processes, if the directory is its own. Raises
    OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    keep_out_others()
    if os.geteuid() == 0 and directory.stat().st_uid == 0:
        _keep_capability(_CAP_SYS_RESOURCE)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _keep_capability(number: int) -> None:
    """Drop all others. One that this process does not have is not gained."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    held = (ctypes.c_uint32 * 6)()
    if libc.capget(header, held):
        raise OSError(ctypes.get_errno(), "capget")
    # The first three words are capabilities 0 to 31: effective, permitted, inheritable.
    kept = (ctypes.c_uint32 * 6)(held[0] & 1 << number, held[1] & 1 << number, 0, 0, 0, 0)
    if libc.capset(header, kept):
        raise OSError(ctypes.get_errno(), "capset")
