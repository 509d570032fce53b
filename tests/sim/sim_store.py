"""An ordered store in memory that keeps what LMDB promises, and refuses what LMDB only happens to allow.

`StoreFile` is what survives: the last committed state, an immutable object. A commit swaps it, so that a
reader keeps the state it began with. `SimStore` is one process's handle; a crash of the file ends every
handle.
"""

from __future__ import annotations

import bisect
import errno
import pathlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from engine.ports.disk import Buffer
from tests.sim.world import Crashed

KEY_BYTES_MAX = 511


class _Table:
    """One table: its values, and its keys in order."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: list[bytes], values: dict[bytes, bytes]) -> None:
        self.keys = keys
        self.values = values

    def copy(self) -> _Table:
        return _Table(list(self.keys), dict(self.values))


Tables = dict[str, _Table]
_NOTHING = _Table([], {})


class DiedAfterCommit(BaseException):
    """The process that committed has died before its next commit."""


class StoreFile:
    """The stored state, and the faults to come."""

    def __init__(self) -> None:
        self.tables: Tables = {}
        self.generation = 0
        self.writing = False
        self.commits = 0
        self._commit_error: int | None = None
        self._commits_left: int | None = None

    @contextmanager
    def dies_after_one_commit(self) -> Iterator[None]:
        """While the body runs the second commit is not made: DiedAfterCommit, which ends the body."""
        self._commits_left = 1
        try:
            yield
        except DiedAfterCommit:
            self.writing = False
        finally:
            self._commits_left = None

    def crash(self) -> None:
        """All processes that have the store open die; committed states stay."""
        self.generation += 1
        self.writing = False

    def put_back(self, tables: Tables) -> None:
        """An old state is there again, and nobody has the store open."""
        self.crash()
        self.tables = tables

    def fail_next_commit(self, code: int = errno.ENOSPC) -> None:
        """The next commit raises OSError(`code`) and changes nothing."""
        self._commit_error = code

    def commit(self, changed: dict[str, _Table]) -> None:
        """Take over a transaction's tables at once."""
        code, self._commit_error = self._commit_error, None
        if code is not None and changed:
            raise OSError(code, "commit failed as the test asked")
        if self._commits_left is not None:
            if not self._commits_left:
                raise DiedAfterCommit
            self._commits_left -= 1
        self.tables = {**self.tables, **changed}
        self.commits += 1


class SimCursor:
    """See `Cursor`. A move that the port leaves open raises RuntimeError."""

    def __init__(self, transaction: SimTransaction, table: str) -> None:
        self._transaction = transaction
        self._table = table
        self._changes = transaction.changes(table)
        self._key = b""
        # Key index to go to with `next` and with `prev`; None once the place is lost.
        self._next: int | None = 0
        self._previous: int | None = len(self._rows().keys) - 1

    def set_range(self, key: bytes) -> bool:
        """See `Cursor.set_range`."""
        keys = self._rows().keys
        self._changes = self._transaction.changes(self._table)
        index = bisect.bisect_left(keys, key)
        if index == len(keys):
            self._key, self._next, self._previous = b"", None, index - 1
            return False
        return self._place(keys, index)

    def next(self) -> bool:
        """See `Cursor.next`."""
        return self._move(self._next)

    def prev(self) -> bool:
        """See `Cursor.prev`."""
        return self._move(self._previous)

    def key(self) -> bytes:
        """See `Cursor.key`."""
        self._transaction.check()
        return self._key

    def value(self) -> bytes:
        """See `Cursor.value`."""
        return self._rows().values[self._key] if self._key else b""

    def _rows(self) -> _Table:
        return self._transaction.rows(self._table)

    def _move(self, index: int | None) -> bool:
        keys = self._rows().keys
        if index is None or self._changes != self._transaction.changes(self._table):
            raise RuntimeError("the cursor lost its place; set_range first")
        if 0 <= index < len(keys):
            return self._place(keys, index)
        self._key, self._next, self._previous = b"", None, None
        return False

    def _place(self, keys: list[bytes], index: int) -> bool:
        self._key, self._next, self._previous = keys[index], index + 1, index - 1
        return True


class SimTransaction:
    """See `ReadTransaction` and `WriteTransaction`."""

    def __init__(self, store: SimStore, write: bool) -> None:
        self._store = store
        self._write = write
        self._begun: dict[str, _Table] | None = None
        self._changed: dict[str, _Table] = {}
        self._changes: dict[str, int] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        """See `ReadTransaction.get`."""
        return self.rows(table).values.get(key)

    def cursor(self, table: str) -> SimCursor:
        """See `ReadTransaction.cursor`."""
        return SimCursor(self, table)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """See `WriteTransaction.put`."""
        if not 1 <= len(key) <= KEY_BYTES_MAX:
            raise ValueError(f"a key must have 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
        rows = self._own(table)
        if key not in rows.values:
            bisect.insort(rows.keys, bytes(key))
        rows.values[bytes(key)] = bytes(value)

    def put_sorted(self, table: str, items: Iterable[tuple[bytes, Buffer]]) -> None:
        """See `WriteTransaction.put_sorted`; keys out of order raise ValueError, where LMDB would be slow."""
        last = b""
        for key, value in items:
            if key < last:
                raise ValueError("keys must be given in order")
            self.put(table, key, bytes(value))
            last = key

    def delete(self, table: str, key: bytes) -> bool:
        """See `WriteTransaction.delete`."""
        rows = self._own(table)
        if key not in rows.values:
            return False
        del rows.values[key]
        del rows.keys[bisect.bisect_left(rows.keys, key)]
        return True

    def rows(self, table: str) -> _Table:
        """The table as this transaction sees it."""
        begun = self.check()
        if self._changed and (changed := self._changed.get(table)) is not None:
            return changed
        rows = begun.get(table)
        if rows is None:
            self._store.check_table(table)
            return _NOTHING
        return rows

    def changes(self, table: str) -> int:
        """How often this transaction wrote to the table."""
        return self._changes.get(table, 0)

    def check(self) -> dict[str, _Table]:
        """The state that the transaction began with; RuntimeError outside its block, Crashed after a
        crash."""
        store, begun = self._store, self._begun
        if store.closed or store.generation != store.file.generation:
            store.check()
        if begun is None:
            raise RuntimeError("the transaction has ended")
        return begun

    def _own(self, table: str) -> _Table:
        if not self._write:
            raise PermissionError(errno.EACCES, "a read transaction cannot write")
        rows = self.rows(table)
        if table not in self._changed:
            rows = self._changed[table] = rows.copy()
        self._changes[table] = self.changes(table) + 1
        return rows

    def __enter__(self) -> Self:
        self._begun = self._store.begin(self._write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.check()
            if self._write and error is None:
                self._store.file.commit(self._changed)
        finally:
            self._begun = None
            self._store.end(self._write)


class SimStore:
    """See `Store`: one process's handle on `file`."""

    def __init__(self, file: StoreFile, tables: tuple[str, ...], readonly: bool = False) -> None:
        self.file = file
        self.path = pathlib.Path("simulated")
        self._tables = tables
        self._readonly = readonly
        self.generation = file.generation
        self._open_transactions = 0
        self.closed = False

    def read(self) -> SimTransaction:
        """See `Store.read`."""
        self.check()
        return SimTransaction(self, write=False)

    def write(self) -> SimTransaction:
        """See `Store.write`. A second writer, who would wait for the first, is an error in one thread."""
        self.check()
        if self._readonly:
            raise PermissionError(errno.EACCES, "opened for reading")
        return SimTransaction(self, write=True)

    def close(self) -> None:
        """See `Store.close`."""
        if self._open_transactions:
            raise RuntimeError("closed with a transaction open")
        self.closed = True

    def space(self) -> tuple[int, int]:
        """See `Store.space`: there are no pages here, and so none that is free."""
        return (0, 0)

    def make_room(self) -> None:
        """See `IndexFile.make_room`."""

    @contextmanager
    def let_go(self) -> Iterator[None]:
        """See `IndexFile.let_go`."""
        yield

    def begin(self, write: bool) -> dict[str, _Table]:
        """A transaction's block begins."""
        self.check()
        if write:
            if self.file.writing:
                raise RuntimeError("two write transactions would wait for each other for ever")
            self.file.writing = True
        self._open_transactions += 1
        return self.file.tables

    def end(self, write: bool) -> None:
        """A transaction's block ends."""
        self._open_transactions -= 1
        if write and self.generation == self.file.generation:
            self.file.writing = False

    def check(self) -> None:
        """Raise if this handle is dead or closed."""
        if self.generation != self.file.generation:
            raise Crashed("this store was opened before the crash")
        if self.closed:
            raise RuntimeError("the store is closed")

    def check_table(self, table: str) -> None:
        """KeyError for a table that the store was not opened with, as the real one raises."""
        if table not in self._tables:
            raise KeyError(table)
