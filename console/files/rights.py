"""Which of a file's rights are restored. What a volume's root could do there, it must not do here by being
restored: set-id bits, file capabilities and attributes that only root may set come only where that was asked
for, owners and access lists only where root restores. What is left out is counted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from protocol.file_stream import Entry

SET_ID = 0o6000
PERMISSIONS = 0o7777
# What is never carried over from a file system, by its word: said once, and not for every file that has it.
NOT_KEPT = {
    "ntfs": "owners and access lists (files get yours), DOS attributes but read-only, short names",
    "fat": "DOS attributes but read-only; it has no owners (files get yours)",
    "exfat": "DOS attributes but read-only; it has no owners (files get yours)",
}
_ANYBODY = b"user."
_CAPABILITY = b"security.capability"
_ROOT_ONLY = (b"security.", b"trusted.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """`owner`: everything gets its owner, which root may give. `special`: devices and pipes come too.
    `privileged`: set-id bits, capabilities, security.* and trusted.* attributes come too."""

    owner: bool
    special: bool
    privileged: bool


@dataclass(slots=True, kw_only=True)
class Dropped:
    """How many files, directories and links came without a right; attributes are counted one by one."""

    set_id: int = 0
    capabilities: int = 0
    attributes: int = 0
    owners: int = 0

    def text(self) -> str:
        """For people; empty if nothing was left out."""
        words = (
            (self.set_id, "set-id bits"),
            (self.capabilities, "file capabilities"),
            (self.attributes, "attributes"),
            (self.owners, "owners"),
        )
        return ", ".join(f"{count} {word}" for count, word in words if count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What an entry gets."""

    mode: int
    attributes: tuple[tuple[bytes, bytes], ...]


def grant(entry: Entry, rights: Rights, dropped: Dropped) -> Granted:
    """Decides, and counts what is left out."""
    mode = entry.mode & PERMISSIONS
    if mode & SET_ID and not (rights.owner and rights.privileged):
        mode &= ~SET_ID
        if entry.what != "l":
            dropped.set_id += 1
    kept = []
    for name, value in entry.attributes:
        if _may_set(name, rights):
            kept.append((name, value))
        elif name == _CAPABILITY:
            dropped.capabilities += 1
        else:
            dropped.attributes += 1
    return Granted(mode=mode, attributes=tuple(kept))


def count_owner(entry: Entry, dropped: Dropped) -> None:
    """It stays the caller's."""
    if (entry.uid, entry.gid) != (os.geteuid(), os.getegid()):
        dropped.owners += 1


def _may_set(name: bytes, rights: Rights) -> bool:
    if name.startswith(_ANYBODY):
        return True
    return rights.owner and (rights.privileged or not name.startswith(_ROOT_ONLY))
