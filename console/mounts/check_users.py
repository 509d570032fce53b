"""As whom a check runs: a user of this machine by name, or numbers as the recovered files have them.

A database's files belong to the number that its user has where it was written, and no user here need have
that.
"""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass

from protocol.errors import NotAllowed, NotFound, UsageError

_NUMBERS = re.compile(r"(\d{1,10})(?::(\d{1,10}))?", re.ASCII)
_ID_MAX = (1 << 32) - 2  # -1 means none


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckUser:
    """Numbers, and a name to show; `groups` are all of them."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def check_user(text: str) -> CheckUser:
    """`USER`, `UID` or `UID:GID`. NotAllowed unless root asks, NotFound, UsageError for root, who needs no
    dropping, and for a number of which nobody here says its group."""
    if os.geteuid() != 0:
        raise NotAllowed(
            f"only root can run a check as {text}", subject=text, next_step=f"sudo farshore … --as {text}"
        )
    found = _by_number(text) or _by_name(text)
    if found.uid == 0 or 0 in found.groups:
        raise UsageError(
            f"--as {text} would keep rights of root",
            subject=text,
            next_step="leave --as out to run the check as root, or name a user without root's group",
        )
    return found


def _by_number(text: str) -> CheckUser | None:
    match = _NUMBERS.fullmatch(text)
    if match is None:
        return None
    uid, gid = int(match[1]), int(match[2]) if match[2] else None
    if gid is None:
        try:
            entry = pwd.getpwuid(uid) if uid <= _ID_MAX else None
        except KeyError:
            entry = None
        if entry is not None:
            return _by_name(entry.pw_name)
        raise UsageError(
            f"user {uid} has no entry on this machine, so its group is not known",
            subject=text,
            next_step=f"write --as {uid}:GID",
        )
    if max(uid, gid) > _ID_MAX:
        raise UsageError(f"{text} is no user's and group's number", subject=text)
    return CheckUser(name=text, uid=uid, gid=gid, groups=(gid,))


def _by_name(text: str) -> CheckUser:
    try:
        entry = pwd.getpwnam(text)
    except (KeyError, ValueError) as error:
        raise NotFound(
            f"there is no user {text} on this machine",
            subject=text,
            next_step="`getent passwd` lists users; --as UID:GID takes the numbers of the files",
        ) from error
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid))))
    return CheckUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups)
