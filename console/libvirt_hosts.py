"""Disks for libvirt: which device each volume is, and whether libvirt's QEMU can reach the socket."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from console.host_configs import Export, libvirt, libvirt_commandline, target_at, target_index
from console.session import Session
from protocol.commands.clone import CloneList
from protocol.commands.volume import VolumeList
from protocol.errors import NotFound

USER = "libvirt-qemu"
STYLES = ("libvirt", "libvirt-commandline")


def place_in_group(session: Session, group: str, volume: str) -> int:
    """How many volumes of its group, or of its clone, are older: so each has a device of its own."""
    try:
        volumes = session.call(VolumeList(group=group)).volumes
        volumes.sort(key=lambda each: int(each.id.rpartition(":")[2]))
        names = [each.volume for each in volumes]
    except NotFound:
        clones = session.call(CloneList(group=None)).clones
        exports = next((each.exports for each in clones if each.clone == group), [])
        names = [name.partition("/")[2] for name in exports]
    return names.index(volume) if volume in names else 0


def disk_text(style: str, export: Export, first: str, index: int, *, reconnect: bool) -> str:
    """The text for the disk that comes `index` after the device `first`."""
    target = target_at(target_index(first) + index, first)
    if style == "libvirt":
        return libvirt(export, target, reconnect=reconnect)
    return libvirt_commandline(export, target)


def unreachable(path: str, user: str = USER) -> str:
    """Why a user of this machine may not connect to a socket; empty if it may, is not known here, or if there
    is no such socket, or an ACL decides."""
    try:
        known = pwd.getpwnam(user)
        groups = set(os.getgrouplist(user, known.pw_gid))
        for directory in reversed(Path(path).absolute().parents):
            if not _may(str(directory), known.pw_uid, groups, stat.S_IXOTH):
                return f"{user} may not pass through {directory}"
        if _may(path, known.pw_uid, groups, stat.S_IWOTH):
            return ""
        owner = os.stat(path)
    except (KeyError, OSError):
        return ""
    return (
        f"{user} may not connect to {path} (mode {stat.S_IMODE(owner.st_mode):04o}, group "
        f"{_group(owner.st_gid)})"
    )


def _may(path: str, uid: int, groups: set[int], others: int) -> bool:
    """Whether the mode has the right `others`, as shifted for whoever the user is."""
    found = os.stat(path)
    if "system.posix_acl_access" in os.listxattr(path):
        return True
    if found.st_uid == uid:
        return bool(found.st_mode & others << 6)
    return bool(found.st_mode & (others << 3 if found.st_gid in groups else others))


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
