"""Whether a start finds what it stands on: `state.mdb`, which says what groups there are, and their files.

A site that has lost it would come up without a group, and let new ones be made over the files of the old.
"""

from __future__ import annotations

import os
import pathlib

from daemon.data_directory import STATE_FILE
from engine.group.site_state import SITE_TABLES
from engine.ports.lmdb_store import LacksTables, LmdbStore
from protocol.errors import Corruption

GROUPS = "groups"
JOURNAL = "journal"


def require_state(directory: pathlib.Path) -> None:
    """That there is a state where there are groups. Corruption; OSError."""
    state = directory / STATE_FILE
    try:
        if os.stat(state).st_size:
            return
        lost = "is empty"
    except FileNotFoundError:
        lost = "is missing"
    names = _with_journals(directory / GROUPS)
    if names:
        raise Corruption(
            f"{state} {lost}, and says nothing of the groups whose files are here: {', '.join(names)}",
            subject=str(state),
            next_step="put the file back from a copy of the directory; if there is none, the site is "
            'lost, and its volumes are read by "Read a dead site\'s directory" of docs/operations.md',
        )


def look_at_state(directory: pathlib.Path) -> str:
    """What `site check` says of it, while no daemon writes there. Corruption; OSError."""
    require_state(directory)
    names = _with_journals(directory / GROUPS)
    state = directory / STATE_FILE
    if not state.exists() or not os.stat(state).st_size:
        return "no groups yet"
    try:
        LmdbStore(state, 0, SITE_TABLES, readonly=True, alone=True).close()
    except LacksTables:
        pass  # of an earlier version
    return f"{STATE_FILE} can be read, {len(names)} groups have files"


def _with_journals(groups: pathlib.Path) -> list[str]:
    """The directories in which something was written once. OSError."""
    try:
        found = sorted(groups.iterdir())
    except FileNotFoundError:
        return []
    return [each.name for each in found if _has_timelines(each / JOURNAL)]


def _has_timelines(journal: pathlib.Path) -> bool:
    try:
        return any(each.is_dir() and any(each.iterdir()) for each in journal.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
