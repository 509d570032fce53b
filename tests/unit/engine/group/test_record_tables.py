"""Every record of the registry is applied, and forgotten with the branch that says it."""

from __future__ import annotations

from typing import Any

from hypothesis import given

from engine.copies.copies import CopyTable
from engine.copies.policies import Policies
from engine.group.record_tables import RecordTables
from engine.group.site_state import SiteState
from engine.history.promises import Promises
from engine.history.timelines import TimelineTable
from engine.history.unread import UnreadFrames
from engine.history.volumes import VolumeHistory
from engine.ports.memory_store import MemoryStore
from protocol.events import Record, TimelineBegan
from tests.unit.protocol.test_events import records


def new_tables() -> RecordTables:
    """Those of a group that has no journal yet."""
    timelines = TimelineTable()
    unread = UnreadFrames("g", SiteState(MemoryStore()), timelines, lambda _: 0)
    return RecordTables(VolumeHistory(), CopyTable(), Policies(), Promises(), unread)


def held(tables: RecordTables) -> list[Any]:
    """What the tables hold, without keys that have nothing any more."""
    return [
        {
            name: {key: each for key, each in value.items() if each not in ({}, set())}
            for name, value in vars(table).items()
            if isinstance(value, dict)
        }
        for table in tables
    ]


@given(records)
def test_a_record_is_applied_and_forgotten_with_its_branch(record: Record) -> None:
    tables, empty = new_tables(), held(new_tables())
    tables.apply(1, 100, 100, 7_000, record)
    assert (held(tables) == empty) == isinstance(record, TimelineBegan)
    once = held(tables)
    tables.apply(1, 100, 100, 7_000, record)
    assert held(tables) == once
    tables.forget(2, 0)
    assert held(tables) == once
    tables.forget(1, 100)
    assert held(tables) == empty
