"""Cuts: places in a group's journal, and what a name of one stands for."""

from __future__ import annotations

from protocol.bounds import Name
from protocol.commands.base import Query, Reply
from protocol.cut_text import NamedCut


class CutInfo(Reply, frozen=True, kw_only=True):
    """A cut; `text` is `TIMELINE:POSITION`, `time` that of the last frame before it."""

    timeline: str
    position: int
    text: str
    time: str | None


class CutResolveReply(CutInfo, frozen=True, kw_only=True):
    """The cut, and the backup that it is, if it was asked for by label or id. `complete_until`: up to then
    this site holds every write."""

    group: str
    label: str | None
    backup_id: str | None
    complete_until: str | None


class CutResolve(Query[CutResolveReply], frozen=True, tag="cut.resolve"):
    """What a name of a cut stands for at this site now."""

    group: Name
    cut: NamedCut
