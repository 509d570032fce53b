"""A group's history by time, as a slider shows it: bytes written in each of some equal spans, and marks."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from protocol.bounds import Name, UtcNs
from protocol.commands.base import Query, Reply

BUCKETS_MAX = 1000
MARKS_MAX = 1000


class TimelineBucket(Reply, frozen=True, kw_only=True):
    """From `time` on, for the reply's `bucket_s`: bytes of journal written; null where too little is held to
    say."""

    time: str
    bytes: int | None


class TimelineMark(Reply, frozen=True, kw_only=True):
    """What happened at `time`. `cut`: what the backup shows, what was restored, or where the writing moved;
    `name`: the backup's, the volume's, or that of the site that writes from then on."""

    kind: Literal["backup", "restore", "switchover", "takeover"]
    time: str
    cut: str
    name: str


class TimelineReply(Reply, frozen=True, kw_only=True):
    """Oldest first. `held_from`: when the first frame was written that is held here, null without any;
    `exact`: whether every bucket was counted frame by frame, or some by an even spread. `marks` are the
    newest; `marks_left_out`: how many older ones there were."""

    group: str
    begin: str = field(name="from")
    end: str = field(name="to")
    bucket_s: float
    held_from: str | None
    exact: bool
    buckets: list[TimelineBucket]
    marks: list[TimelineMark]
    marks_left_out: int


class Timeline(Query[TimelineReply], frozen=True, tag="timeline"):
    """The head's lineage from `from_ns` up to `to_ns` (UTC), in so many spans of equal length."""

    group: Name
    from_ns: UtcNs
    to_ns: UtcNs
    buckets: Annotated[int, Meta(ge=1, le=BUCKETS_MAX)] = 60
