"""Groups that go, or get another name: in an order that a loss of power may end anywhere.

    1  groups/NAME/moving    what is to become of the group, written before anything else
    2  the site's state      every row of the group, in one transaction
    3  the directory         renamed, or emptied and removed; the file of step 1 goes last

A start finishes what it finds begun (`finish`). A name with such a file in its directory is not free for
another group; a file that does not fit the group whose directory it is in is taken away, and changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec

from engine.group.site_state import SITE_TABLES, GroupRow, SiteState, rows_of
from engine.ports.disk import Disk
from engine.ports.store import Store
from protocol.bounds import GroupIdOrNone, Name
from protocol.errors import Busy, FarshoreError

MARK = "moving"
_TIMELINE_CHARS = 16  # of a timeline's directory in a journal
# Whose keys are no group's name with more behind it.
_OTHER_TABLES = {"clones", "job_givers", "jobs", "news", "set_aside"}


class _Move(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file: which group, and its new name; null if it is to go."""

    group_id: GroupIdOrNone
    to: Name | None


def check_free(disk: Disk, name: str) -> None:
    """That no group that is on its way out has the name, and that no journal is there of which this site
    knows nothing. Busy."""
    if disk.exists(f"{_place(name)}/{MARK}"):
        raise Busy(
            f"the directory of an earlier group {name} is still there",
            subject=name,
            next_step="restart the site's daemon, which goes on removing it",
        )
    journal = f"{_place(name)}/journal"
    if disk.exists(journal) and any(len(each) == _TIMELINE_CHARS for each in disk.list_directory(journal)):
        raise Busy(
            f"{_place(name)} holds the journal of a group that this site knows nothing of",
            subject=name,
            next_step="move that directory out of the data directory, or choose another name",
        )


def is_there(disk: Disk, name: str) -> bool:
    """Whether the group's directory is."""
    return disk.exists(_place(name))


def move_rows(store: Store, name: str, to: str | None) -> None:
    """Step 2, of a group that is closed: every row of it has the new name, or goes; all or none. OSError."""
    old = name.encode()
    with store.write() as write:
        for table in sorted(set(SITE_TABLES) - _OTHER_TABLES):
            for key, value in rows_of(write, table):
                group, zero, rest = key.partition(b"\0")
                if group == old:
                    write.delete(table, key)
                    if to is not None:
                        write.put(table, to.encode() + zero + rest, value)


def begin(disk: Disk, row: GroupRow, to: str | None) -> None:
    """Step 1. OSError."""
    move = _Move(group_id=row.group_id, to=to)
    disk.replace_file(f"{_place(row.name)}/{MARK}", msgspec.json.encode(move))


def finish(disk: Disk, store: Store, state: SiteState, said: Callable[[str, Exception], None]) -> None:
    """At a start, before any group is opened: go on with what was begun. `said` is told what fails, by the
    group's name."""
    for name in disk.list_directory("groups") if disk.exists("groups") else []:
        if disk.exists(f"{_place(name)}/{MARK}"):
            try:
                _finish(disk, store, state, name)
            except (OSError, FarshoreError) as error:
                said(name, error)


def _finish(disk: Disk, store: Store, state: SiteState, name: str) -> None:
    try:
        move = msgspec.json.decode(disk.read_file(f"{_place(name)}/{MARK}"), type=_Move)
    except (msgspec.MsgspecError, ValueError):
        move = None
    here = {row.name: row.group_id for row in state.groups()}
    if move is None or here.get(name, move.group_id) != move.group_id or move.to == name:
        disk.remove(f"{_place(name)}/{MARK}")
    elif move.to is None:
        move_rows(store, name, None)
        move_directory(disk, name, None)
    elif here.get(move.to) == move.group_id and name not in here:
        move_directory(disk, name, move.to)
    elif name in here:
        disk.remove(f"{_place(name)}/{MARK}")  # step 2 was not done: it has its old name


def move_directory(disk: Disk, name: str, to: str | None) -> None:
    """Step 3. OSError: the next start goes on."""
    if to is None:
        remove_tree(disk, _place(name), last=MARK)
    else:
        with contextlib.suppress(FileNotFoundError):
            disk.remove(_place(to))  # an empty one, which a failed try left
        disk.rename(_place(name), _place(to))
        disk.sync([], ["groups"])
        disk.remove(f"{_place(to)}/{MARK}")


def remove_tree(disk: Disk, path: str, last: str = "") -> None:
    """Remove a directory and what is in it, the name `last` in it after all others. OSError."""
    for name in sorted(disk.list_directory(path), key=lambda each: each == last):
        inside = f"{path}/{name}"
        try:
            remove_tree(disk, inside)
        except NotADirectoryError:
            disk.remove(inside)
    disk.remove(path)


def _place(name: str) -> str:
    return f"groups/{name}"
