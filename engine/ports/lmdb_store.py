"""The store over LMDB, and the only module that imports it.

Rules. Sync is on and writemap off, always: a commit is durable when it returns. Several processes may open
one store (the daemon reads, the indexer writes); LMDB orders the writers among them. An environment must not
be used across a fork, nor opened twice in one process. The file's name is durable only after the caller
synced its directory.

Exceptions of LMDB do not leave this module: no room is OSError (ENOSPC), other system errors OSError with
their number, a damaged file `Corruption`. It knows bytes and tables, not what they mean.
"""

from __future__ import annotations

import errno
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import lmdb

from engine.ports.disk import Buffer
from engine.ports.lmdb_pages import LacksPages, check_pages
from engine.ports.store import Cursor
from protocol.errors import Busy, Corruption

# Readers are the daemon's and the indexer's threads; the rest is room for slots of killed processes.
READERS_MAX = 126
FILE_MODE = 0o600
# The design's layout of blocks counts on the 16-byte page header of LMDB 0.9 (4,080 bytes to a value).
LMDB_MAJOR = 0

# A transaction is bad once it has met a page of the wrong kind.
_DAMAGED = (
    lmdb.BadTxnError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
)


class LacksTables(Exception):
    """A store that is only to be read lacks a table, or is not there: whoever may write it makes it so."""


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)


def map_bytes_for(content_bytes: int, room_bytes: int) -> int:
    """The size of a map for a store with so much in it. A power of two, so that few sizes are ever taken."""
    return 1 << (2 * content_bytes + room_bytes - 1).bit_length()


class _Transaction:
    """A transaction of either kind, and the block that it lives in."""

    __slots__ = ("_store", "_tables", "_transaction")

    def __init__(self, store: LmdbStore, transaction: lmdb.Transaction[bytes]) -> None:
        self._store = store
        self._tables = store.tables
        self._transaction = transaction

    def get(self, table: str, key: bytes) -> bytes | None:
        """See `ReadTransaction.get`."""
        return self._transaction.get(key, None, self._tables[table])

    def cursor(self, table: str) -> Cursor:
        """See `ReadTransaction.cursor`: LMDB's own cursor, with no layer of ours on the read path."""
        return self._transaction.cursor(self._tables[table])

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """See `WriteTransaction.put`. ValueError for a key that is empty or longer than 511 bytes."""
        self._transaction.put(key, value, True, True, False, self._tables[table])

    def put_sorted(self, table: str, items: Iterable[tuple[bytes, Buffer]]) -> None:
        """See `WriteTransaction.put_sorted`."""
        with self._transaction.cursor(self._tables[table]) as cursor:
            cursor.putmulti(items, dupdata=False, overwrite=True)

    def delete(self, table: str, key: bytes) -> bool:
        """See `WriteTransaction.delete`."""
        return self._transaction.delete(key, b"", self._tables[table])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end(error)
        finally:
            self._store.ended()

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            try:
                self._transaction.commit()
            except lmdb.Error as failure:
                raise self._store.failed(failure) from failure
            return
        self._transaction.abort()
        if isinstance(error, lmdb.Error):
            raise self._store.failed(error) from error


class LmdbStore:
    """The environment in one file `path` (and `path`-lock beside it) with the named tables, made if need be.

    `room_bytes`: address space for what one transaction may add, here or in another process; each process
    chooses its own. `readonly` needs an existing store with all tables (LacksTables), refuses `write`, and
    has no buffers for it, which are some MiB. `alone`, with `readonly`: no process writes it, so no lock file
    is made or asked, and nothing is written anywhere; tables that an older version did not have are left out
    of `tables`.
    """

    def __init__(
        self,
        path: pathlib.Path,
        room_bytes: int,
        tables: tuple[str, ...],
        readonly: bool = False,
        alone: bool = False,
    ) -> None:
        self.path = path
        self.tables: dict[str, lmdb._Database] = {}
        self._room_bytes = room_bytes
        self._full = 0  # the map that a write filled
        self._names = tables
        self._readonly = readonly
        self._alone = alone
        self._guard = threading.Lock()  # of the environment, its map and the count of open transactions
        self._transactions = 0
        self._open()

    def _open(self) -> None:
        try:
            check_pages(self.path)
        except LacksPages as lacking:
            raise self._damaged(lacking) from lacking
        try:
            self._environment = lmdb.open(
                str(self.path),
                map_size=map_bytes_for(self._file_bytes(), self._room_bytes),
                subdir=False,
                readonly=self._readonly,
                create=not self._readonly,
                mode=FILE_MODE,
                metasync=True,
                sync=True,
                writemap=False,
                readahead=False,
                lock=not self._alone,
                max_readers=READERS_MAX,
                max_dbs=len(self._names),
                lib_version=LMDB_MAJOR,
            )
        except lmdb.Error as failure:
            raise self.translate(failure) from failure
        try:
            self._environment.reader_check()
            # The file may be shorter than what it holds: pages that were taken and given back.
            self._fit()
            self._open_tables()
        except (lmdb.Error, LacksTables, OSError) as failure:
            self._environment.close()
            if isinstance(failure, lmdb.Error):
                raise self.translate(failure) from failure
            raise

    def _open_tables(self) -> None:
        """What makes them does so in one transaction: each is synced. Of one that only reads, py-lmdb would
        not keep the tables opened in it."""
        if not self._readonly:
            with self._environment.begin(write=True) as transaction:
                for table in self._names:
                    self.tables[table] = self._environment.open_db(table.encode(), transaction)
            return
        for table in self._names:
            try:
                self.tables[table] = self._environment.open_db(table.encode(), create=False)
            except lmdb.NotFoundError as lacking:
                if not self._alone:
                    raise LacksTables(f"{self.path} has no table {table}") from lacking

    def _file_bytes(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def make_room(self) -> None:
        """Make the map larger if another transaction, here or elsewhere, might fill it. Nothing while one is
        open: then it is tried the next time. To be called after what may have added much. OSError (ENOMEM):
        the store is closed."""
        with self._guard:
            if not self._transactions:
                self._fit()

    def _fit(self) -> None:
        """With no transaction open."""
        info = self._environment.info()
        content_bytes = (info["last_pgno"] + 1) * self._environment.stat()["psize"]
        if self._full or info["map_size"] - content_bytes < self._room_bytes // 2:
            wanted = max(map_bytes_for(content_bytes, self._room_bytes), 2 * self._full)
            try:
                self._environment.set_mapsize(wanted)
            except lmdb.Error as failure:
                # The old map has gone, and LMDB would read where it was.
                self._environment.close()
                raise OSError(
                    errno.ENOMEM, f"no address space for a map of {wanted} bytes: {failure}", str(self.path)
                ) from failure
            self._full = 0

    @contextmanager
    def let_go(self) -> Iterator[None]:
        """Close the file while the body runs, which may put another in its place, and open what then has its
        name. Busy, with nothing done, while a transaction is open. A body that replaces the file removes the
        `-lock` file too, and no other process of ours may have it open: what stands in there is of the old
        one, and who found it would read the new file at a state that it does not have."""
        with self._guard:
            if self._transactions:
                raise Busy(f"{self.path} is being read", subject=str(self.path), next_step="try again")
            self._environment.close()
            try:
                yield
            finally:
                self._open()

    def space(self) -> tuple[int, int]:
        """See `Store.space`: the rest is free pages."""
        with self._guard:
            try:
                with self._environment.begin() as transaction:
                    stats = [transaction.stat(table) for table in self.tables.values()]
                stats.append(self._environment.stat())
                info = self._environment.info()
            except lmdb.Error as failure:
                raise self.translate(failure) from failure
        pages = sum(each["branch_pages"] + each["leaf_pages"] + each["overflow_pages"] for each in stats)
        return pages * stats[0]["psize"], (info["last_pgno"] + 1) * stats[0]["psize"]

    def ended(self) -> None:
        """A transaction ended."""
        with self._guard:
            self._transactions -= 1

    def read(self) -> _Transaction:
        """See `Store.read`."""
        return self._begin(write=False)

    def write(self) -> _Transaction:
        """See `Store.write`. Waits for another process's write to end.

        Slots of killed readers are cleared first: each pins the pages of its state, and the file would grow.
        """
        try:
            self._environment.reader_check()
        except lmdb.Error as failure:
            raise self.translate(failure) from failure
        return self._begin(write=True)

    def copy_compacted(self, path: pathlib.Path) -> None:
        """Write one committed state without free pages to `path`, a new file; not durable on return."""
        try:
            with open(path, "xb", opener=_owner_only) as target:
                self._environment.copyfd(target.fileno(), compact=True)
        except lmdb.Error as failure:
            raise self.translate(failure) from failure

    def close(self) -> None:
        """See `Store.close`; twice is fine."""
        self._environment.close()

    def _begin(self, write: bool) -> _Transaction:
        with self._guard:
            if write and not self._transactions:
                self._fit()
            self._transactions += 1
            environment = self._environment
        try:
            try:
                transaction = environment.begin(None, None, write)
            except lmdb.MapResizedError:
                transaction = self._begin_past_the_map(write)
        except BaseException as failure:
            self.ended()
            if isinstance(failure, lmdb.Error):
                raise self.translate(failure) from failure
            raise
        return _Transaction(self, transaction)

    def _begin_past_the_map(self, write: bool) -> lmdb.Transaction[bytes]:
        """Another process wrote more than there was room for. OSError (EAGAIN) while what began before is not
        over: its reads lie in the map as it is."""
        with self._guard:
            if self._transactions > 1:
                raise OSError(errno.EAGAIN, "it grew while it is being read", str(self.path))
            self._fit()
            return self._environment.begin(None, None, write)

    def failed(self, failure: lmdb.Error) -> Exception:
        """A transaction failed: what is told of it. The next after one that filled the map has more."""
        if isinstance(failure, lmdb.MapFullError):
            with self._guard:
                self._full = self._environment.info()["map_size"]
        return self.translate(failure)

    def translate(self, failure: lmdb.Error) -> Exception:
        """What a caller is told of LMDB's `failure`."""
        name = str(self.path)
        if isinstance(failure, lmdb.MapFullError | lmdb.DiskError):
            return OSError(errno.ENOSPC, f"no room in the store: {failure}", name)
        if isinstance(failure, _DAMAGED):
            return self._damaged(failure)
        if isinstance(failure, lmdb.BadValsizeError):
            return ValueError(f"a key must have 1 to 511 bytes: {failure}")
        code = getattr(failure, "code", 0)
        return OSError(code if code > 0 else errno.EIO, f"the store failed: {failure}", name)

    def _damaged(self, failure: Exception) -> Corruption:
        return Corruption(
            f"{self.path} is damaged: {failure}",
            subject=str(self.path),
            next_step="stop the daemon and restore the file; or move it away if nothing was truncated",
        )
