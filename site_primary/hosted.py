"""What hosts write to, as the code between them and a journal sees it: a group, or a clone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.group.core import GroupCore
from engine.group.listeners import Emit
from engine.journal.writer import DurableCallback, JournalWriter
from engine.ports.clock import Clock
from protocol.events import Row
from protocol.frames import Buffer, Frame
from protocol.positions import Cut


class Hosted(Protocol):
    """See `engine.group.group.Group` and `engine.group.open_clone.Clone`."""

    name: str
    clock: Clock
    writer: JournalWriter
    emit: Emit

    @property
    def history(self) -> GroupCore:
        """The group in whose journal and index it is."""

    @property
    def end(self) -> Cut:
        """Everything written."""

    @property
    def overloaded(self) -> bool:
        """Whether hosts must wait."""

    def append(self, rows: Sequence[Row], payload: Sequence[Buffer], payload_bytes: int) -> Frame:
        """Append one frame of data rows with their blocks."""

    def when_durable(self, callback: DurableCallback) -> None:
        """Call back once everything written so far is durable here, or never will be."""
