"""The tables that a group's records are applied to, and that forget what a dropped branch said.

A table that records are applied to is a field of `RecordTables`, so none is left out of `forget`. mypy wants
a case for each class of `Record`, and `forget` of each table.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from engine.copies.copies import CopyTable
from engine.copies.policies import Policies
from engine.history.promises import Promises
from engine.history.unread import UnreadFrames
from engine.history.volumes import VolumeHistory
from protocol.events import CopyRecord, PolicySet, PromiseRecord, Record, TimelineBegan, VolumeRecord


class RecordTables(NamedTuple):
    """Those of one group."""

    volumes: VolumeHistory
    copies: CopyTable
    policies: Policies
    promises: Promises
    unread: UnreadFrames

    def apply(self, timeline: int, frame_position: int, position: int, utc_ns: int, record: Record) -> None:
        """One record at its place; the same one again is fine."""
        if isinstance(record, VolumeRecord):
            self.volumes.apply(timeline, position, record)
        elif isinstance(record, CopyRecord):
            self.copies.apply(timeline, frame_position, position, utc_ns, record)
        elif isinstance(record, PolicySet):
            self.policies.apply(timeline, position, utc_ns, record)
        elif isinstance(record, PromiseRecord):
            self.promises.apply(timeline, frame_position, record)
        elif isinstance(record, TimelineBegan):
            pass  # the timeline itself was taken in with its first frame
        else:
            assert_never(record)

    def forget(self, timeline: int, position: int) -> None:
        """Leave out what a timeline that is being dropped says from a position on."""
        for table in self:
            table.forget(timeline, position)
