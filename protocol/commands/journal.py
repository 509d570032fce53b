"""Journals: a group's timelines and frames."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from protocol.bounds import Name
from protocol.commands.base import Reply, Rows
from protocol.commands.cut import CutInfo
from protocol.commands.pages import PagedCommand
from protocol.cut_text import CutPosition


class TimelineInfo(Reply, frozen=True, kw_only=True):
    """A timeline: where it left its parent, and up to where it is part of the head's lineage."""

    timeline: str
    parent: str | None
    fork: int
    generation: int
    writer: str
    end: int


class FrameInfo(Reply, frozen=True, kw_only=True):
    """A frame; `position` is `TIMELINE:POSITION`, `kinds` how many events of each kind it has. `unread`: why
    it is not understood, if it is not."""

    position: str
    bytes: int
    time: str
    events: int
    kinds: dict[str, int]
    durable: int
    digest: str
    unread: str | UnsetType = UNSET


class JournalShowReply(Reply, frozen=True, kw_only=True):
    """Frames oldest first; `next`: where those after them begin."""

    group: str
    head: CutInfo
    timelines: list[TimelineInfo]
    segments: int
    bytes: int
    frames: list[FrameInfo]
    next: str | None


class JournalShow(PagedCommand[JournalShowReply], frozen=True, tag="journal.show"):
    """The newest `limit` frames; with `since`, the first `limit` from there."""

    group: Name
    since: CutPosition | None = None
    limit: Rows = 50


class OfflineBackup(Reply, frozen=True, kw_only=True):
    """A backup that a dead site's journal holds."""

    id: str
    label: str | None
    cut: CutInfo


class OfflineJournalReply(JournalShowReply, frozen=True, kw_only=True):
    """The journal of a dead site's directory; `notes`: what was not as usual."""

    backups: list[OfflineBackup]
    notes: list[str]


class ReplayVolume(Reply, frozen=True, kw_only=True):
    """A volume of a dead site's directory at `cut`, of a journal up to `end`. `since`: where the journal that
    is left begins, if the rest was in a lost index."""

    volume: str
    size_bytes: int
    cut: CutInfo
    end: CutInfo
    since: str | None
    notes: list[str]


class ReplayFound(ReplayVolume, frozen=True, kw_only=True):
    """The same, served to whoever asked as `export`."""

    export: str
