"""A store in memory, for offline tools: what a file held, or nothing, with changes that no file sees."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from engine.ports.disk import Buffer
from engine.ports.store import Store


class MemoryStore:
    """See `Store`; one user, one transaction at a time."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[bytes, bytes]] = {}

    def copy_from(self, store: Store, tables: Iterable[str]) -> None:
        """Take over every row of these tables."""
        with store.read() as transaction:
            for table in tables:
                rows = self._tables.setdefault(table, {})
                cursor = transaction.cursor(table)
                while cursor.next():
                    rows[bytes(cursor.key())] = bytes(cursor.value())

    def read(self) -> _Transaction:
        """See `Store.read`."""
        return _Transaction(self._tables)

    def write(self) -> _Transaction:
        """See `Store.write`: at once, and for as long as this process lives."""
        return _Transaction(self._tables)

    def space(self) -> tuple[int, int]:
        """See `Store.space`: there is no file."""
        return (0, 0)

    def close(self) -> None:
        """See `Store.close`."""


class _Transaction:
    def __init__(self, tables: dict[str, dict[bytes, bytes]]) -> None:
        self._tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        """See `ReadTransaction.get`."""
        return self._tables.get(table, {}).get(key)

    def cursor(self, table: str) -> _Cursor:
        """See `ReadTransaction.cursor`."""
        return _Cursor(self._tables.get(table, {}))

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """See `WriteTransaction.put`."""
        self._tables.setdefault(table, {})[key] = value

    def put_sorted(self, table: str, items: Iterable[tuple[bytes, Buffer]]) -> None:
        """See `WriteTransaction.put_sorted`."""
        self._tables.setdefault(table, {}).update((key, bytes(value)) for key, value in items)

    def delete(self, table: str, key: bytes) -> bool:
        """See `WriteTransaction.delete`."""
        return self._tables.get(table, {}).pop(key, None) is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        pass


class _Cursor:
    """A place among the keys that there were when it was made."""

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self._rows = rows
        self._keys = sorted(rows)
        self._at = -1

    def set_range(self, key: bytes) -> bool:
        """See `Cursor.set_range`."""
        self._at = bisect_left(self._keys, key)
        return self._at < len(self._keys)

    def next(self) -> bool:
        """See `Cursor.next`."""
        self._at = min(self._at + 1, len(self._keys))
        return self._at < len(self._keys)

    def prev(self) -> bool:
        """See `Cursor.prev`."""
        self._at = len(self._keys) - 1 if self._at < 0 else self._at - 1
        return self._at >= 0

    def key(self) -> bytes:
        """See `Cursor.key`."""
        return self._keys[self._at] if 0 <= self._at < len(self._keys) else b""

    def value(self) -> bytes:
        """See `Cursor.value`."""
        return self._rows.get(self.key(), b"")
