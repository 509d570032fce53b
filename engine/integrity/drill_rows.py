"""Rows of drills in the site's own store, whatever is in them: by group and by when the drill began.

    name\\0u64 UTC ns of the drill's start    row

Of each group the newest are kept. Every write is durable on return.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from struct import Struct

from engine.ports.store import Cursor, ReadTransaction, Store

NS = Struct(">Q")


def group_prefix(group: str) -> bytes:
    """How the keys of a group's rows begin."""
    return group.encode() + b"\0"


def row_key(group: str, started_utc_ns: int) -> bytes:
    """The key of one drill's row."""
    return group_prefix(group) + NS.pack(started_utc_ns)


def newest_first(
    store: Store, table: str, group: str, limit: int | None = None, before_utc_ns: int | None = None
) -> list[tuple[int, bytes]]:
    """When each of a group's drills began, and its row; those only that began before a time, if one is
    given."""
    with store.read() as transaction:
        rows = islice(_rows(transaction, table, group, before_utc_ns), limit)
        return [(started, bytes(cursor.value())) for started, cursor in rows]


def drop_old(store: Store, table: str, group: str, kept_max: int) -> None:
    """All but the newest so many of a group go."""
    with store.read() as transaction:
        old = [started for started, _ in islice(_rows(transaction, table, group, None), kept_max, None)]
    if old:
        with store.write() as write:
            for started in old:
                write.delete(table, row_key(group, started))


def _rows(
    transaction: ReadTransaction, table: str, group: str, before_utc_ns: int | None
) -> Iterator[tuple[int, Cursor]]:
    """The same, with the cursor that is at the row."""
    prefix = group_prefix(group)
    cursor = transaction.cursor(table)
    # The first key past the group's; where there is none, `prev` goes to the last of all.
    past = prefix + b"\xff" * (NS.size + 1)
    cursor.set_range(past if before_utc_ns is None else row_key(group, before_utc_ns))
    while cursor.prev():
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            return
        yield int(NS.unpack(key[len(prefix) :])[0]), cursor
