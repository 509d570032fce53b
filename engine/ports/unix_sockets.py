"""Unix sockets that a server listens on: a path that a killed run left taken, and who may connect.

The mode is set between bind() and listen(): until then every connection is refused, so nobody comes in under
another mode. The umask stays as it is. It is the whole process's, and other threads make files.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from dataclasses import dataclass

from protocol.errors import NotAllowed, NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketAccess:
    """Who may connect: the socket's mode, and the names or numbers of its owner and group; empty: those of
    this process."""

    mode: int
    owner: str = ""
    group: str = ""


def socket_answers(path: str) -> bool:
    """Whether somebody listens at a path. OSError if it cannot be told."""
    with socket.socket(socket.AF_UNIX) as probe:
        # A server whose backlog is full is alive, and must not be waited for.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
    return True


def remove_dead_socket(path: str) -> bool:
    """Remove a socket that nobody listens on. False if somebody does. What is no socket stays, and has
    `bound_socket` fail. OSError if it cannot be told or removed."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return True
        if socket_answers(path):
            return False
        os.unlink(path)
    except FileNotFoundError:
        pass
    return True


def bound_socket(path: str, access: SocketAccess) -> socket.socket:
    """A socket at a path, which those of `access` may connect to, and which does not listen yet. OSError
    (EADDRINUSE) if anything is there; NotFound for an owner or group that is not here, NotAllowed for one
    that this process may not give it to."""
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(path)
        try:
            _give(path, access)
        except BaseException:
            os.unlink(path)
            raise
    except BaseException:
        bound.close()
        raise
    return bound


def check_known(access: SocketAccess) -> None:
    """NotFound for an owner or group that is not here."""
    _user_id(access.owner)
    _group_id(access.group)


def _give(path: str, access: SocketAccess) -> None:
    try:
        if access.owner or access.group:
            os.chown(path, _user_id(access.owner), _group_id(access.group))
        os.chmod(path, access.mode)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        whom = " and ".join(
            f"{what} {name}" for what, name in (("owner", access.owner), ("group", access.group)) if name
        )
        raise NotAllowed(
            f"{path} cannot be given to {whom}: this user may give a socket only to groups that it is in",
            subject=path,
            next_step="add the daemon's user to the group (SupplementaryGroups= of its unit)",
        ) from error


def _user_id(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid if name else -1
    except KeyError as error:
        raise NotFound(f"there is no user {name} on this machine", subject=name) from error


def _group_id(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid if name else -1
    except KeyError as error:
        raise NotFound(f"there is no group {name} on this machine", subject=name) from error
