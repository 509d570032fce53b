"""A disk in memory that knows what is written from what is durable, and takes the difference away.

The contents of files, and what a sync or a crash does to them, are `sim_inode`'s. Names: what the port
promises of them is durable at once; each rename or removal not yet synced is kept or lost in a crash. A sync
takes what was written before it STARTED. Faults are asked for by the test: `crash`, `kill`, `fail_next_sync`,
`capacity_bytes`, ….
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.ports.disk import Buffer, DiskFile, SyncDone
from engine.ports.durable import NO_ROOM
from tests.sim.sim_inode import Inode
from tests.sim.world import Crashed, SimWorld

SYNC_DELAY_S = (0.0003, 0.02)
PREALLOCATE_DELAY_S = (0.001, 0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameChange:
    """A rename, or a removal (no target), not yet durable. `directory` is the one whose sync settles it."""

    directory: str
    source: str
    target: str | None


@dataclass(frozen=True, slots=True)
class DiskImage:
    """What `cp -a` makes of a disk: every file as it is read."""

    files: dict[str, bytes]
    directories: tuple[str, ...]


class SimFile:
    """See `DiskFile`."""

    def __init__(self, disk: SimDisk, path: str, inode: Inode) -> None:
        self.path = path
        self.inode = inode
        self._disk = disk
        self._generation = disk.generation
        self._closed = False

    def pread(self, length: int, offset: int) -> bytes:
        """See `DiskFile.pread`."""
        self.check()
        with memoryview(self.inode.content) as content:
            return bytes(content[offset : offset + length])

    def pwrite(self, data: Buffer, offset: int) -> None:
        """See `DiskFile.pwrite`."""
        self.check()
        self._disk.write(self.inode, bytes(data), offset, self.path)

    def truncate(self, size_bytes: int) -> None:
        """See `DiskFile.truncate`; ValueError for a size beyond the present one."""
        self.check()
        self._disk.truncate(self.inode, size_bytes)

    def size(self) -> int:
        """See `DiskFile.size`."""
        self.check()
        return len(self.inode.content)

    def data_end(self) -> int:
        """See `DiskFile.data_end`."""
        self.check()
        return len(self.inode.content.rstrip(b"\0"))

    def close(self) -> None:
        """See `DiskFile.close`."""
        self._closed = True

    def check(self) -> None:
        """Crashed after a crash; OSError (EBADF) once closed."""
        if self._generation != self._disk.generation:
            raise Crashed(f"{self.path} was opened before the crash")
        if self._closed:
            raise OSError(errno.EBADF, "the file is closed", self.path)


class SimDisk:
    """See `Disk`. The object stays the same over crashes; files opened before one raise `Crashed`."""

    def __init__(self, world: SimWorld, capacity_bytes: int = 1 << 40) -> None:
        self.generation = 0
        self.capacity_bytes = capacity_bytes
        self.sync_delay_s = SYNC_DELAY_S
        self._world = world
        self._files: dict[str, Inode] = {}
        self._durable_files: dict[str, Inode] = {}
        self._directories: dict[str, None] = {"": None}
        self._name_changes: list[NameChange] = []
        self._sequence = 0
        self._sync_errors: list[int] = []
        self._write_errors: list[int] = []

    # The port.

    def open(self, path: str) -> SimFile:
        """See `Disk.open`."""
        return SimFile(self, path, self._inode(path))

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        return path in self._files or path in self._directories

    def list_directory(self, path: str) -> list[str]:
        """See `Disk.list_directory`."""
        prefix = f"{path}/" if path else ""
        names = [*self._files, *(name for name in self._directories if name)]
        below = (name[len(prefix) :] for name in names if name.startswith(prefix))
        return sorted(name for name in below if "/" not in name)

    def make_directory(self, path: str) -> None:
        """See `Disk.make_directory`."""
        made = ""
        for name in path.split("/"):
            made = f"{made}/{name}" if made else name
            if made in self._files:
                raise FileExistsError(errno.EEXIST, "a file has this name", made)
            self._directories[made] = None

    def preallocate(self, path: str, size_bytes: int) -> SimFile:
        """See `Disk.preallocate`."""
        self._check_new(path)
        if size_bytes > self.free_bytes():
            raise OSError(errno.ENOSPC, "no space left on the simulated disk", path)
        inode = Inode(bytearray(size_bytes))
        self._files[path] = inode
        self._make_name_durable(path)
        return SimFile(self, path, inode)

    def start_preallocate(self, path: str, size_bytes: int, done: SyncDone) -> None:
        """See `Disk.start_preallocate`."""
        self._start(PREALLOCATE_DELAY_S, lambda: self.preallocate(path, size_bytes).close(), done)

    def rename(self, source: str, target: str) -> None:
        """See `Disk.rename`."""
        inode = self._inode(source)
        self._check_parent(target)
        self._files[target] = inode
        if source != target:
            del self._files[source]
            self._name_changes.append(NameChange(directory=_parent(target), source=source, target=target))

    def remove(self, path: str) -> None:
        """See `Disk.remove`. The removal of a directory is durable at once: nothing depends on less."""
        if path in self._directories:
            if self.list_directory(path):
                raise OSError(errno.ENOTEMPTY, "the directory is not empty", path)
            self._settle_names(path)
            del self._directories[path]
            return
        self._inode(path)
        del self._files[path]
        self._name_changes.append(NameChange(directory=_parent(path), source=path, target=None))

    def sync(self, files: Sequence[DiskFile], directories: Sequence[str]) -> None:
        """See `Disk.sync`."""
        missing = self._missing(directories)
        if missing is not None:
            raise missing
        self._sync(_inodes(files), list(directories), self._sequence, len(self._name_changes))

    def forget_cached(self, files: Sequence[DiskFile]) -> None:
        """See `Disk.forget_cached`."""
        for inode in _inodes(files):
            inode.drop_caches()

    def wrote_once(self, path: str, size_bytes: int) -> None:
        """See `Disk.wrote_once`: what is cached here is what is not durable."""

    def start_sync(self, files: Sequence[DiskFile], directories: Sequence[str], done: SyncDone) -> None:
        """See `Disk.start_sync`."""
        inodes, names = _inodes(files), list(directories)
        missing = self._missing(directories)
        sequence, changes = self._sequence, list(self._name_changes)

        def work() -> None:
            if missing is not None:
                raise missing
            # Changes settled meanwhile by another sync have left the list.
            known = sum(1 for change in self._name_changes if any(change is old for old in changes))
            self._sync(inodes, names, sequence, known)

        self._start(self.sync_delay_s, work, done)

    def replace_file(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """See `Disk.replace_file`."""
        self._check_parent(path)
        if len(data) > self.free_bytes():
            raise OSError(errno.ENOSPC, "no space left on the simulated disk", path)
        self._raise_sync_error(path)
        self._files[path] = Inode(bytearray(data))
        self._make_name_durable(path)

    def read_file(self, path: str) -> bytes:
        """See `Disk.read_file`."""
        return bytes(self._inode(path).content)

    def free_bytes(self) -> int:
        """See `Disk.free_bytes`."""
        return max(0, self.capacity_bytes - sum(len(inode.content) for inode in self._files.values()))

    def why_full(self, error: OSError) -> str:
        """See `Disk.why_full`."""
        return NO_ROOM

    # Faults.

    def kill(self) -> None:
        """The process dies and the machine stays up: all that was written stays, and stays pending."""
        self.generation += 1

    def crash(self, rng: random.Random | None = None) -> None:
        """The machine loses power."""
        rng = rng or self._world.random
        self.generation += 1
        for change in self._name_changes:
            if rng.random() < 0.5:
                self._apply(change)
        self._name_changes.clear()
        self._files = {path: self._durable_files[path] for path in sorted(self._durable_files)}
        self._durable_files = dict(self._files)
        for inode in self._files.values():
            inode.crash(rng)

    def fail_next_sync(self, code: int = errno.EIO) -> None:
        """The next sync that completes fails, and loses what it should have made durable."""
        self._sync_errors.append(code)

    def fail_next_write(self, code: int = errno.EIO) -> None:
        """The next pwrite fails, after writing a part that chance chooses."""
        self._write_errors.append(code)

    def drop_caches(self) -> None:
        """What a failed sync lost can no longer be read."""
        for inode in self._files.values():
            inode.drop_caches()

    def image(self) -> DiskImage:
        """Copy everything, as an operator may while nothing runs."""
        files = {path: bytes(inode.content) for path, inode in self._files.items()}
        return DiskImage(files, tuple(self._directories))

    def put_back(self, image: DiskImage) -> None:
        """Everything is as it was copied, durably."""
        self.kill()
        self._files = {path: Inode(bytearray(content)) for path, content in image.files.items()}
        self._durable_files = dict(self._files)
        self._directories = dict.fromkeys(image.directories)
        self._name_changes.clear()

    def flip_bit(self, path: str, offset: int, bit: int = 0) -> None:
        """Rot one bit of a file."""
        self._inode(path).content[offset] ^= 1 << bit

    def close(self) -> None:
        """See `ClosableDisk.close`: what was started ends with the process."""

    # Inside.

    def write(self, inode: Inode, data: bytes, offset: int, path: str) -> None:
        """A `pwrite` through a file of this disk."""
        fits_bytes = len(data)
        code = 0
        if self._write_errors:
            code = self._write_errors.pop(0)
            fits_bytes = self._world.random.randrange(len(data) + 1)
        growth_bytes = offset + fits_bytes - len(inode.content)
        if growth_bytes > 0 and growth_bytes > (free_bytes := self.free_bytes()):
            code = errno.ENOSPC
            fits_bytes = max(0, fits_bytes - growth_bytes + free_bytes)
        self._sequence += 1
        if fits_bytes:
            inode.write(data[:fits_bytes], offset, self._sequence)
        if code:
            raise OSError(code, "the simulated write failed", path)

    def truncate(self, inode: Inode, size_bytes: int) -> None:
        """A `truncate` through a file of this disk."""
        self._sequence += 1
        inode.truncate(size_bytes, self._sequence)

    def _sync(self, inodes: list[Inode], directories: list[str], sequence: int, changes: int) -> None:
        code = self._sync_errors.pop(0) if self._sync_errors else 0
        for inode in inodes:
            if code:
                inode.lose_dirty(sequence, self._world.random)
            else:
                inode.make_durable(sequence)
        if code:
            if self._world.random.random() < 0.5:
                self.drop_caches()
            raise OSError(code, "the simulated sync failed")
        settled = [change for change in self._name_changes[:changes] if change.directory in directories]
        self._settle(settled)

    def _missing(self, directories: Sequence[str]) -> FileNotFoundError | None:
        for directory in directories:
            if directory not in self._directories:
                return FileNotFoundError(errno.ENOENT, "no such directory", directory)
        return None

    def _settle_names(self, directory: str) -> None:
        self._settle([change for change in self._name_changes if change.directory == directory])

    def _settle(self, settled: list[NameChange]) -> None:
        for change in settled:
            self._apply(change)
        self._name_changes = [
            change for change in self._name_changes if not any(change is done for done in settled)
        ]

    def _apply(self, change: NameChange) -> None:
        """On the durable names. One whose source is not there depended on a change that was lost."""
        inode = self._durable_files.get(change.source)
        if inode is None:
            return
        del self._durable_files[change.source]
        if change.target is not None:
            self._durable_files[change.target] = inode

    def _make_name_durable(self, path: str) -> None:
        """A new file at `path`, with its directory synced as the port promises. The name cannot be used again
        before the change that freed it is durable too."""
        self._settle_names(_parent(path))
        self._settle([change for change in self._name_changes if path in (change.source, change.target)])
        self._durable_files[path] = self._files[path]

    def _start(self, delay_s: tuple[float, float], work: Callable[[], None], done: SyncDone) -> None:
        generation = self.generation

        def run() -> None:
            if generation != self.generation:
                return
            try:
                work()
            except OSError as error:
                done(error)
            else:
                done(None)

        self._world.schedule(self._world.random.uniform(*delay_s), run)

    def _raise_sync_error(self, path: str) -> None:
        if self._sync_errors:
            raise OSError(self._sync_errors.pop(0), "the simulated sync failed", path)

    def _inode(self, path: str) -> Inode:
        inode = self._files.get(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return inode

    def _check_new(self, path: str) -> None:
        self._check_parent(path)
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, "the name is taken", path)

    def _check_parent(self, path: str) -> None:
        if _parent(path) not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", _parent(path))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _inodes(files: Sequence[DiskFile]) -> list[Inode]:
    inodes = []
    for file in files:
        if not isinstance(file, SimFile):
            raise TypeError(f"not a file of this disk: {file!r}")
        file.check()
        inodes.append(file.inode)
    return inodes
