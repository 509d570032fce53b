"""Dying in the middle: a disk and a store whose process may end with any one of the changes that it makes.

`Fuse` counts changes. The one with which it burns down happens, happens in part or does not, and then
`ProcessDied` passes through all of the code that asked for it: a BaseException, so that nothing in between
takes it for an error to handle.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

from engine.group.group import Group
from engine.history.lineage import frames_after
from protocol.frames import Frame
from protocol.positions import Cut
from tests.sim.sim_disk import SimDisk, SimFile
from tests.sim.sim_inode import Inode
from tests.sim.sim_store import StoreFile, _Table
from tests.sim.world import SimWorld

T = TypeVar("T")


class ProcessDied(BaseException):
    """A site's process has just died; `power`: with the whole machine."""

    def __init__(self, site: str, power: bool) -> None:
        super().__init__(site)
        self.site = site
        self.power = power


class Fuse:
    """One site's."""

    def __init__(self, site: str, world: SimWorld) -> None:
        self.rng = world.random
        self._site = site
        self._left = 0
        self._power = False

    def light(self, changes: int, power: bool) -> None:
        """Die with the given one of the changes to come, from 1 on."""
        self._left, self._power = changes, power

    def put_out(self) -> None:
        """Live on."""
        self._left = 0

    def burns(self) -> bool:
        """Count a change: whether the process dies with this one."""
        if not self._left:
            return False
        self._left -= 1
        return self._left == 0

    def die(self) -> NoReturn:
        """End the process."""
        raise ProcessDied(self._site, self._power)

    def around(self, change: Callable[[], T]) -> T:
        """Carry out a change that is there whole or not at all."""
        if not self.burns():
            return change()
        if self.rng.random() < 0.5:
            change()
        return self.die()


class MortalDisk(SimDisk):
    """A machine's disk, and the faults to be mended with it."""

    def __init__(self, world: SimWorld, fuse: Fuse) -> None:
        super().__init__(world)
        self._fuse = fuse
        self.failed_syncs = 0
        self.unreadable_fetches = 0

    def mend(self) -> None:
        """No more faults."""
        self.capacity_bytes = 1 << 40
        self.unreadable_fetches = 0
        self._sync_errors.clear()
        self._write_errors.clear()

    def used_bytes(self) -> int:
        """In files."""
        return sum(len(inode.content) for inode in self._files.values())

    def write(self, inode: Inode, data: bytes, offset: int, path: str) -> None:
        """A write may be there in part."""
        if not self._fuse.burns():
            super().write(inode, data, offset, path)
            return
        part = self._fuse.rng.randrange(len(data) + 1)
        super().write(inode, data[:part], offset, path)
        self._fuse.die()

    def truncate(self, inode: Inode, size_bytes: int) -> None:
        """See `SimDisk.truncate`."""
        self._fuse.around(lambda: super(MortalDisk, self).truncate(inode, size_bytes))

    def rename(self, source: str, target: str) -> None:
        """See `SimDisk.rename`."""
        self._fuse.around(lambda: super(MortalDisk, self).rename(source, target))

    def remove(self, path: str) -> None:
        """See `SimDisk.remove`."""
        self._fuse.around(lambda: super(MortalDisk, self).remove(path))

    def make_directory(self, path: str) -> None:
        """See `SimDisk.make_directory`."""
        self._fuse.around(lambda: super(MortalDisk, self).make_directory(path))

    def preallocate(self, path: str, size_bytes: int) -> SimFile:
        """A file may be left with less than its size."""
        if not self._fuse.burns():
            return super().preallocate(path, size_bytes)
        if self._fuse.rng.random() < 0.7:
            super().preallocate(path, self._fuse.rng.choice((0, size_bytes // 4096 // 2 * 4096, size_bytes)))
        return self._fuse.die()

    def _sync(self, inodes: list[Inode], directories: list[str], sequence: int, changes: int) -> None:
        failing = bool(self._sync_errors)
        self.failed_syncs += failing
        self._fuse.around(
            lambda: super(MortalDisk, self)._sync(inodes, directories, sequence, changes),
        )


def readable_frames_after(group: Group, at: Cut) -> Iterator[Frame]:
    """In place of what a peer's fetch is answered with: a read error, once for each that was asked for."""
    disk = group.disk
    if isinstance(disk, MortalDisk) and disk.unreadable_fetches:
        disk.unreadable_fetches -= 1
        raise OSError(errno.EIO, "the simulated read failed", "journal")
    return frames_after(group, at)


class MortalStoreFile(StoreFile):
    """A store whose commit is there whole or not at all."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self._fuse = fuse

    def mend(self) -> None:
        """No more faults."""
        self._commit_error = None

    def commit(self, changed: dict[str, _Table]) -> None:
        """See `StoreFile.commit`."""
        self._fuse.around(lambda: super(MortalStoreFile, self).commit(changed))
