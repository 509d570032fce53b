"""What is asked of the indexer for a base that is received; `engine.index.base_index` carries it out."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from engine.history.timelines import Timeline
from engine.index.requests import IndexRequest
from protocol.bounds import Digest, Position, TimelineId, UtcNs
from protocol.limits import BASE_PARTS_MAX
from protocol.positions import Cut
from protocol.wire import AnyCut


class BaseOpen(IndexRequest, frozen=True, kw_only=True, tag="base-open"):
    """Begin a pending base with X = `timeline`, unless one is pending, this or another."""

    timeline: TimelineId
    cut: Cut
    start: Cut | None


class BasePart(IndexRequest, frozen=True, kw_only=True, tag="base-part"):
    """Index X up to `end`, a frame boundary that is durable."""

    timeline: TimelineId
    end: Position


class BaseInstall(IndexRequest, frozen=True, kw_only=True, tag="base-install"):
    """Install a base X = `timeline` that is indexed to its `end`, as `engine.history.bases.Base` has it.
    `timelines`: those of B's lineage that are new here; `parts`: the records up to B, as they were sent."""

    timeline: TimelineId
    end: Position
    utc_ns: UtcNs
    digest: Digest
    left: AnyCut
    timelines: tuple[Timeline, ...]
    parts: Annotated[tuple[bytes, ...], Meta(max_length=BASE_PARTS_MAX)]


class BaseDrop(IndexRequest, frozen=True, kw_only=True, tag="base-drop"):
    """Delete rows of the pending base, whose files are gone."""

    timeline: TimelineId
