"""Directories that are not simply made: the volume's root, which the target directory stands for, and those
that were there before.

Nothing that is there is changed by a restore next to it: a directory that was there before keeps what it has,
and what differs is listed. The target directory is the caller's: one that the restore makes stays open to
nobody else (what comes is a stranger's, and may have rights), whatever the volume's root let others do.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

import msgspec

from console.files.rights import Granted
from console.files.tar_acl import RECORDS as ACCESS_LISTS
from protocol.file_stream import Entry, Opened

TARGET_MODE = 0o700
# FAT counts in units of two seconds; what is further off was cut to what the target can hold.
TIME_OFF_NS_MAX = 2_000_000_000
_ACCESS_LIST = b"system.posix_acl_access"


def root_without(opened: Opened, *, is_new: bool) -> str:
    """What of the volume's root does not come to the target directory, by rule: said once."""
    if not is_new:
        what = "mode, owner, times and attributes" if opened.has_owners else "times"
        return f"{what} of / itself (the target directory was there before)"
    if opened.has_owners:
        return "mode, owner and access list of / itself (the target directory is yours alone)"
    return ""


def says_nothing(root: Entry, opened: Opened) -> bool:
    """Whether the file system has no entry for its root (FAT): there is nothing that could be restored."""
    return not opened.has_owners and not root.mtime_ns and not root.lacks


def for_new_target(root: Entry) -> Entry:
    """What a target that was made for it gets of the volume's root."""
    kept = tuple(each for each in root.attributes if each[0] != _ACCESS_LIST)
    return msgspec.structs.replace(root, mode=TARGET_MODE, attributes=kept)


def keeps_of_its_own(here: int, entry: Entry, granted: Granted, opened: Opened, *, owner: bool) -> str:
    """What the open directory has otherwise than the restored one would: words, or nothing. `owner`: it would
    have got its owner, and so its access lists."""
    status = os.fstat(here)
    words = []
    if opened.has_owners and stat.S_IMODE(status.st_mode) != granted.mode:
        words.append("mode")
    if owner and (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        words.append("owner")
    if abs(status.st_mtime_ns - entry.mtime_ns) > TIME_OFF_NS_MAX:
        words.append("times")
    expected = dict(granted.attributes)
    names = {*expected, *(ACCESS_LISTS if owner else ())}
    if any(_attribute(here, name) != expected.get(name) for name in names):
        words.append("attributes")
    return ", ".join(words)


def drop_access_lists(here: int) -> None:
    """A mode alone would leave those in force that the open directory had before."""
    for name in ACCESS_LISTS:
        # There is none, or the file system has none.
        with suppress(OSError):
            os.removexattr(here, name)


def _attribute(here: int, name: bytes) -> bytes | None:
    """None for one that is not there."""
    with suppress(OSError):
        return os.getxattr(here, name)
    return None
