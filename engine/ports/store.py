"""An ordered key-value store as a port: what Farshore needs of LMDB and no more.

A write transaction is atomic and durable on its return. A read transaction sees one committed state and must
not outlive the batch it serves. The real form is `engine.ports.lmdb_store`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from engine.ports.disk import Buffer


class Cursor(Protocol):
    """A place in one table, in key order. After a failed move `key()` is b"" and the place is lost: only
    `set_range` finds one again, or `prev` straight after a failed `set_range`, which goes to the last key. A
    write to the table loses the place too."""

    def set_range(self, key: bytes) -> bool:
        """Go to the first key >= `key`; False if there is none."""

    def next(self) -> bool:
        """Go one key on; False past the end."""

    def prev(self) -> bool:
        """Go one key back; False past the start."""

    def key(self) -> bytes:
        """The key here."""

    def value(self) -> bytes:
        """The value here."""


class ReadTransaction(Protocol):
    """One committed state."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of `key`, or None."""

    def cursor(self, table: str) -> Cursor:
        """A cursor on `table`, not yet placed: `next` goes to the first key, `prev` to the last."""


class WriteTransaction(ReadTransaction, Protocol):
    """Reads see this transaction's own writes."""

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Set `key` to `value`."""

    def put_sorted(self, table: str, items: Iterable[tuple[bytes, Buffer]]) -> None:
        """Set many keys, given in key order."""

    def delete(self, table: str, key: bytes) -> bool:
        """Remove `key`; False if it was not there."""


class Store(Protocol):
    """The whole store."""

    def read(self) -> AbstractContextManager[ReadTransaction]:
        """Begin a read."""

    def write(self) -> AbstractContextManager[WriteTransaction]:
        """Begin a write: committed and durable when the block ends, gone if it raises. OSError (ENOSPC) when
        there is no room."""

    def space(self) -> tuple[int, int]:
        """Bytes in use, and the file's size as far as it was ever used: the rest is used before it grows."""

    def close(self) -> None:
        """Close; no transaction may be open."""
