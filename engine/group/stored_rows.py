"""The rows of a site's state, looked at once at its start, before anything reads them.

A row that cannot be what its table holds names itself, and keeps no other group and not the daemon from
starting. What becomes of it, and of its group:

    groups, pairs                   stay as they are: `SiteState.bad_groups` names them, and their groups
                                    stay closed
    heard, leases, drops            the same: to go on without could write by an authority that others
                                    outrank, give up a cut that somebody needs, or read what is half gone
    closed                          the volume stays closed, and says that the reason cannot be read (where it
                                    is the key that cannot be read, here and below: the group stays closed)
    heads                           what was written here is held to all that it called durable
    shipped                         as if the peer had been sent frames of the head
    lease_ends                      the lease ends when the longest one may
    clones                          without its row a clone is a branch
    accepted                        an operator has to accept the volume again
    access                          that host is on the list still, and may not open the volume
    locks                           what it was about counts as having come just now: locked for longer
    jobs, drills, damage, rounds,   nothing else depends on them: damage is found again by whoever reads
    copy_marks, proofs, told_drills,
    job_givers, verified_by
    drill_plans                     the group is not drilled any more until an operator says so again
    news                            the peer is asked as if for the first time

A row that is taken away or replaced goes into the table `set_aside` as it was, for a person to look at, in
the same transaction. A row whose group is not here is set aside, whatever its table.

    set_aside   u64 number    row (UTC ns, table, key, value)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import error as StructError

from engine.copies import copy_marks
from engine.group import access, clone_rows
from engine.group.site_state import CUT, CUTS, FOLLOWED, U64, SiteState, rows_of
from engine.history import accepted
from engine.integrity import damage, drills, proofs, verify_rounds
from engine.integrity.faults import KEY as FAULT_KEY
from engine.integrity.faults import Fault
from engine.ports.store import ReadTransaction, Store
from engine.retention.lock_clock import CLOCK, CLOCK_KEY
from engine.retention.lock_notes import notes_in
from protocol.commands.base import check_name
from protocol.errors import Corruption, FarshoreError, RemoteProtocolError
from protocol.limits import DRILL_BYTES_MAX, LEASE_S_MAX
from protocol.rows import pack_row

SET_ASIDE = "set_aside"
KEY_SHOWN_CHARS_MAX = 120
# Whatever reading a row's bytes raises.
BAD_BYTES = (RemoteProtocolError, FarshoreError, ValueError, StructError, RecursionError)
# What a volume is closed for, whose reason cannot be read.
CLOSED_UNREADABLE = "the stored reason cannot be read"

Check = Callable[[bytes, bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTable:
    """`check(key, value)` raises one of `BAD_BYTES` for a row that is none; the key is without the group
    where there is one in it (`of_group`). `stand_in(state, group, now_ns)` gives the value that takes the
    place of a bad one. `closes`: without the row the group stays closed."""

    check: Check
    of_group: bool = True
    closes: bool = False
    stand_in: Callable[[SiteState, str, int], bytes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """`subject` names the row; `group` is empty if the row does not say, or is of none that is here."""

    table: str
    group: str
    subject: str
    error: str
    instead: str


@dataclass(slots=True)
class SortedOut:
    """`set_aside`: rows that were taken away or replaced now. `closed`: groups that must not be opened."""

    set_aside: list[BadRow] = field(default_factory=list)
    closed: dict[str, FarshoreError] = field(default_factory=dict)


def _u64(key: bytes) -> None:
    U64.unpack(key)


def _head(key: bytes, value: bytes) -> None:
    _u64(key)
    if value not in (b"\0", FOLLOWED):
        raise ValueError("a head's mark is 0 or 1")


def _closed(key: bytes, value: bytes) -> None:
    _u64(key)
    value.decode()


def _number(key: bytes, value: bytes) -> None:
    if key:
        raise ValueError("the key is a group's name")
    _u64(value)


def _lease(key: bytes, value: bytes) -> None:
    key.decode()
    CUT.decode(value)


def _lease_end(key: bytes, value: bytes) -> None:
    key.decode()
    _u64(value)


def _drop(key: bytes, value: bytes) -> None:
    _u64(key)
    CUTS.decode(value)


def _clone(key: bytes, value: bytes) -> None:
    check_name(key.decode(), "clone")
    if not clone_rows.ROW.decode(value)[3]:
        raise ValueError("a clone has a timeline")


def _drill(key: bytes, value: bytes) -> None:
    _u64(key)
    drills.ROW.decode(value, DRILL_BYTES_MAX)


def _damage(key: bytes, value: bytes) -> None:
    Fault(FAULT_KEY.unpack(key)[0])
    damage.ROW.decode(value)


def _round(key: bytes, value: bytes) -> None:
    if key == b"\1":
        verify_rounds.CURRENT.decode(value)
    elif key == b"\2":
        verify_rounds.LAST.decode(value)
    else:
        raise ValueError("a round is the one under way, or the last one")


def _copy_mark(key: bytes, value: bytes) -> None:
    _u64(key)
    copy_marks.MARK.decode(value)


def _accepted(key: bytes, value: bytes) -> None:
    _u64(key)
    accepted.ROW.decode(value)


def _lock(key: bytes, value: bytes) -> None:
    if b"\0" + key == CLOCK_KEY:
        CLOCK.decode(value)
    elif notes_in("", {b"\0" + key: value})[1]:
        raise ValueError("no note of a retention lock")


ENGINE_TABLES: Mapping[str, StoredTable] = {
    "closed": StoredTable(check=_closed, closes=True, stand_in=lambda *_: CLOSED_UNREADABLE.encode()),
    "heads": StoredTable(check=_head, closes=True, stand_in=lambda *_: b"\0"),
    "shipped": StoredTable(
        check=_number, closes=True, stand_in=lambda state, group, _: U64.pack(state.group(group).head)
    ),
    "heard": StoredTable(check=_number, closes=True),
    "leases": StoredTable(check=_lease, closes=True),
    "lease_ends": StoredTable(
        check=_lease_end, stand_in=lambda _state, _group, now_ns: U64.pack(now_ns + LEASE_S_MAX * 10**9)
    ),
    "drops": StoredTable(check=_drop, closes=True),
    "clones": StoredTable(check=_clone, of_group=False),
    "drills": StoredTable(check=_drill),
    proofs.PROOFS: StoredTable(check=proofs.check_proof),
    proofs.TOLD: StoredTable(check=proofs.check_told),
    proofs.PLANS: StoredTable(check=proofs.check_plan),
    "damage": StoredTable(check=_damage),
    "rounds": StoredTable(check=_round),
    "copy_marks": StoredTable(check=_copy_mark),
    copy_marks.TABLE: StoredTable(check=copy_marks.check_row),
    "accepted": StoredTable(check=_accepted),
    "access": StoredTable(check=access.check_row, closes=True, stand_in=lambda *_: b""),
    "locks": StoredTable(check=_lock),
}


def sort_out(store: Store, tables: Mapping[str, StoredTable], now_ns: int) -> SortedOut:
    """Look at every row of these tables. OSError (ENOSPC) if what is bad cannot be set aside."""
    state, found = SiteState(store), SortedOut()
    known = {row.name.encode(): row.name for row in state.groups()}
    moved: list[tuple[str, bytes, bytes, bytes | None]] = []  # table, key, value, what stands in its place
    with store.read() as transaction:
        for table, kind in tables.items():
            for key, value in rows_of(transaction, table):
                name, _, rest = key.partition(b"\0") if kind.of_group else (b"", b"", key)
                group = known.get(name, "")
                try:
                    kind.check(rest, value)
                    continue
                except BAD_BYTES as failure:
                    error = str(failure)
                instead = _stand_in(kind, state, group, rest, now_ns)
                if kind.closes and group and instead is None:
                    found.closed.setdefault(group, _corruption(table, key, group, error))
                    continue
                moved.append((table, key, value, instead))
                found.set_aside.append(
                    BadRow(
                        table=table,
                        group=group,
                        subject=name_of(table, key),
                        error=error,
                        instead="" if instead is None else repr(instead),
                    )
                )
    if moved:
        _move(store, moved, now_ns)
    return found


def _stand_in(kind: StoredTable, state: SiteState, group: str, rest: bytes, now_ns: int) -> bytes | None:
    """What takes a bad value's place, if that makes a row."""
    if kind.stand_in is None or not group:
        return None
    value = kind.stand_in(state, group, now_ns)
    try:
        kind.check(rest, value)
    except BAD_BYTES:
        return None  # it is the key that is bad
    return value


def _move(store: Store, moved: list[tuple[str, bytes, bytes, bytes | None]], now_ns: int) -> None:
    with store.write() as write:
        number = _last(write) + 1
        for table, key, value, instead in moved:
            write.put(SET_ASIDE, U64.pack(number), pack_row((now_ns, table, key, value)))
            number += 1
            if instead is None:
                write.delete(table, key)
            else:
                write.put(table, key, instead)


def _last(transaction: ReadTransaction) -> int:
    keys = [key for key, _ in rows_of(transaction, SET_ASIDE) if len(key) == U64.size]
    return int(U64.unpack(max(keys))[0]) if keys else 0


def name_of(table: str, key: bytes) -> str:
    """A row's name, for a person: its table, and its key with what is no text as hex."""
    name, _, rest = key.partition(b"\0")
    text = name.decode("utf-8", "backslashreplace")
    shown = f"{text} {rest.hex()}".strip() if name and text.isprintable() else key.hex()
    return f"state.mdb {table} {shown[:KEY_SHOWN_CHARS_MAX]}"


def _corruption(table: str, key: bytes, group: str, error: str) -> Corruption:
    return Corruption(
        f"the row {name_of(table, key)} cannot be read: {error}",
        subject=group,
        next_step="put state.mdb back from a backup of the data directory; the other groups serve meanwhile",
    )
