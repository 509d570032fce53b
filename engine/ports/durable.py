"""The real disk, and the only module that calls fsync, fdatasync or rename.

Rules. Writing and making durable are different verbs: `pwrite` promises nothing, `sync` everything. A sync
that fails is reported to whoever asked and never tried again here, because Linux marks the pages clean and a
second fsync would succeed over lost data (invariant 3 of the design). A name is durable once its directory
was synced, so every call that promises a durable name syncs the directory after the file.

It knows files and nothing of what is in them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from engine.ports.disk import Buffer, DiskFile, SyncDone
from engine.ports.disk_threads import DiskThreads
from engine.ports.prepared_sync import prepared_sync, sync_directory, synced

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
READ_CHUNK_BYTES = 1 << 20
NO_ROOM = "the file system has no room"


class NotAFile(OSError):
    """A pipe, a device or the like stands in the place of a file."""


class RealFile:
    """One open file by its descriptor; -1 once closed, so that every later call fails with EBADF instead of
    reaching whatever file was given the same number."""

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self._descriptor

    def pread(self, length: int, offset: int) -> bytes:
        """See `DiskFile.pread`."""
        data = os.pread(self._descriptor, length, offset)
        if len(data) == length or not data:
            return data
        return self._pread_rest(data, length, offset)

    def _pread_rest(self, data: bytes, length: int, offset: int) -> bytes:
        """The kernel may return less than asked for before the end of the file."""
        parts = [data]
        have_bytes = len(data)
        while have_bytes < length:
            part = os.pread(self._descriptor, length - have_bytes, offset + have_bytes)
            if not part:
                break
            parts.append(part)
            have_bytes += len(part)
        return b"".join(parts)

    def pwrite(self, data: Buffer, offset: int) -> None:
        """See `DiskFile.pwrite`."""
        written_bytes = os.pwrite(self._descriptor, data, offset)
        if written_bytes != len(data):
            self._pwrite_rest(data, written_bytes, offset)

    def _pwrite_rest(self, data: Buffer, written_bytes: int, offset: int) -> None:
        """A nearly full disk writes what fits first and says ENOSPC only to the next call."""
        with memoryview(data).cast("B") as view:
            while written_bytes < view.nbytes:
                with view[written_bytes:] as rest:
                    more_bytes = os.pwrite(self._descriptor, rest, offset + written_bytes)
                if more_bytes == 0:
                    raise OSError(errno.EIO, "nothing was written", self.path)
                written_bytes += more_bytes

    def truncate(self, size_bytes: int) -> None:
        """See `DiskFile.truncate`."""
        os.ftruncate(self._descriptor, size_bytes)

    def size(self) -> int:
        """See `DiskFile.size`."""
        return os.fstat(self._descriptor).st_size

    def data_end(self) -> int:
        """See `DiskFile.data_end`."""
        return data_end_of(self._descriptor)

    def close(self) -> None:
        """See `DiskFile.close`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def data_end_of(descriptor: int) -> int:
    """See `DiskFile.data_end`. What was preallocated and never written is a hole to lseek(2)."""
    size_bytes = os.fstat(descriptor).st_size
    end = 0
    try:
        while end < size_bytes:
            end = os.lseek(descriptor, os.lseek(descriptor, end, os.SEEK_DATA), os.SEEK_HOLE)
    except OSError as error:
        # ENXIO: nothing but a hole follows. A file system that knows no holes says that all is data.
        return end if error.errno == errno.ENXIO else size_bytes
    return end


class RealDisk:
    """The directory tree under `root`, which must exist.

    With `threads`, `start_…` calls run on them and call back on their loop; without (offline tools) they run,
    and call back, before they return. `hold` puts what calls back into a compartment
    (engine.group.compartment).
    """

    def __init__(
        self,
        root: pathlib.Path,
        threads: DiskThreads | None,
        hold: Callable[[Callable[..., object]], Callable[..., object]] | None = None,
    ) -> None:
        self.root = root
        self._root = os.fspath(root)
        self._threads = threads
        self._hold = hold or (lambda callback: callback)
        self._started: set[Future[OSError | None]] = set()
        self._closed = False

    def open(self, path: str) -> RealFile:
        """See `Disk.open`."""
        return RealFile(path, os.open(self._absolute(path), os.O_RDWR | os.O_NOFOLLOW))

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        return os.path.lexists(self._absolute(path))

    def list_directory(self, path: str) -> list[str]:
        """See `Disk.list_directory`."""
        try:
            return sorted(os.listdir(self._absolute(path)))
        except FileNotFoundError:
            return []

    def make_directory(self, path: str) -> None:
        """See `Disk.make_directory`. Parents are synced even where the directory was there already: a run
        that was killed between its mkdir and its fsync leaves one that is visible and not durable."""
        made = ""
        for name in path.split("/"):
            parent, made = made, f"{made}/{name}" if made else name
            try:
                os.mkdir(self._absolute(made), DIRECTORY_MODE)
            except FileExistsError:
                if not os.path.isdir(self._absolute(made)):
                    raise
            sync_directory(self._absolute(parent))

    def preallocate(self, path: str, size_bytes: int) -> RealFile:
        """See `Disk.preallocate`; FileExistsError if the name is taken."""
        absolute = self._absolute(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        file = RealFile(path, os.open(absolute, flags, FILE_MODE))
        try:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
            synced(os.fsync, file.fileno(), absolute)
            sync_directory(os.path.dirname(absolute))
        except OSError:
            file.close()
            os.unlink(absolute)
            raise
        return file

    def start_preallocate(self, path: str, size_bytes: int, done: SyncDone) -> None:
        """See `Disk.start_preallocate`."""
        self._start(self._others, lambda: self.preallocate(path, size_bytes).close(), done)

    def rename(self, source: str, target: str) -> None:
        """See `Disk.rename`."""
        os.rename(self._absolute(source), self._absolute(target))

    def remove(self, path: str) -> None:
        """See `Disk.remove`."""
        absolute = self._absolute(path)
        try:
            os.unlink(absolute)
        except IsADirectoryError:
            os.rmdir(absolute)

    def sync(self, files: Sequence[DiskFile], directories: Sequence[str]) -> None:
        """See `Disk.sync`. Files first: a name must not become durable before what it names."""
        self._prepared(files, directories)()

    def forget_cached(self, files: Sequence[DiskFile]) -> None:
        """See `Disk.forget_cached`."""
        for file in files:
            os.posix_fadvise(_descriptor_of(file), 0, 0, os.POSIX_FADV_DONTNEED)

    def wrote_once(self, path: str, size_bytes: int) -> None:
        """See `Disk.wrote_once`."""
        if self._threads is not None and not self._closed:
            self._threads.wrote_once(self._absolute(path), size_bytes)

    def start_sync(self, files: Sequence[DiskFile], directories: Sequence[str], done: SyncDone) -> None:
        """See `Disk.start_sync`."""
        work = self._prepared(files, directories)
        self._start(None if self._threads is None else self._threads.syncs, work, done)

    def _prepared(self, files: Sequence[DiskFile], directories: Sequence[str]) -> Callable[[], None]:
        descriptors = [(_descriptor_of(file), file.path) for file in files]
        return prepared_sync(descriptors, map(self._absolute, directories))

    def replace_file(self, path: str, data: bytes, mode: int = FILE_MODE) -> None:
        """See `Disk.replace_file`. Uses the name `path` + ".tmp"."""
        target = self._absolute(path)
        temporary = target + ".tmp"
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        file = RealFile(path, os.open(temporary, flags, mode))
        try:
            os.fchmod(file.fileno(), mode)
            file.pwrite(data, 0)
            synced(os.fsync, file.fileno(), temporary)
            os.rename(temporary, target)
        except OSError:
            os.unlink(temporary)
            raise
        finally:
            file.close()
        sync_directory(os.path.dirname(target))

    def start_replace_file(self, path: str, data: bytes, done: SyncDone) -> None:
        """`replace_file` away from the loop; one at a time for a path."""
        self._start(self._others, lambda: self.replace_file(path, data), done)

    def read_file(self, path: str) -> bytes:
        """See `Disk.read_file`."""
        parts = []
        descriptor = os.open(self._absolute(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            # A pipe would read as empty, a device never end.
            mode = os.fstat(descriptor).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise NotAFile(errno.EINVAL, "it is no file", path)
            while part := os.read(descriptor, READ_CHUNK_BYTES):
                parts.append(part)
        finally:
            os.close(descriptor)
        return b"".join(parts)

    def free_bytes(self) -> int:
        """See `Disk.free_bytes`: what is left to an unprivileged user."""
        try:
            status = os.statvfs(self._root)
        except FileNotFoundError as error:
            # What is open can still be written, and is lost with the last descriptor.
            raise OSError(errno.ENODEV, "the directory has gone", self._root) from error
        return status.f_bavail * status.f_frsize

    def why_full(self, error: OSError) -> str:
        """See `Disk.why_full`."""
        if error.errno == errno.EDQUOT:
            return "the quota of the file system is used up"
        try:
            status = os.statvfs(self._root)
        except OSError:
            return NO_ROOM
        # File systems that make inodes as they need them say 0 of 0.
        return "the file system has no inodes left" if status.f_files and not status.f_favail else NO_ROOM

    def close(self) -> None:
        """Wait for what was started. What finished meanwhile still calls back if the loop runs on. Twice is
        fine; `start_…` fails afterwards."""
        self._closed = True
        wait(self._started)

    def _absolute(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"not a path below the disk's root: {path!r}")
        return f"{self._root}/{path}" if path else self._root

    @property
    def _others(self) -> ThreadPoolExecutor | None:
        return None if self._threads is None else self._threads.others

    def _start(self, executor: ThreadPoolExecutor | None, work: Callable[[], None], done: SyncDone) -> None:
        if executor is None or self._threads is None:
            done(_outcome(work))
            return
        if self._closed:
            raise RuntimeError("the disk is closed")
        loop, held = self._threads.loop, self._hold(lambda future: done(future.result()))

        def finished(future: Future[OSError | None]) -> None:
            self._started.discard(future)
            # A defect of ours in the thread is raised on the loop: nobody awaits the future.
            loop.call_soon_threadsafe(held, future)

        future = executor.submit(_outcome, work)
        self._started.add(future)
        future.add_done_callback(finished)


class FileLock:
    """A held lock; the kernel drops it with the process, however that ends."""

    def __init__(self, file: RealFile) -> None:
        self._file = file

    def close(self) -> None:
        """Give the lock up; twice is fine. The file stays: removing it would let two holders lock two
        inodes."""
        self._file.close()


def lock_file(path: pathlib.Path) -> FileLock:
    """Take the lock on `path`, making the file if need be. BlockingIOError if another holder has it.

    A child made by fork without exec would share the lock; ours are started by exec, which closes it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    file = RealFile(path.name, os.open(path, flags, FILE_MODE))
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return FileLock(file)


def _outcome(work: Callable[[], None]) -> OSError | None:
    try:
        work()
    except OSError as error:
        return error
    return None


def _descriptor_of(file: DiskFile) -> int:
    if not isinstance(file, RealFile):
        raise TypeError(f"not a file of this disk: {file!r}")
    descriptor = file.fileno()
    if descriptor < 0:
        raise OSError(errno.EBADF, "the file is closed", file.path)
    return descriptor
