"""Branches: histories held here that do not lead to the head.

A branch ends where a timeline's frames end off the head's lineage, and begins where it left that lineage. It
is named by its last timeline. What was written past a fork to a timeline of the lineage itself is a branch
too: the tail that a follower had of a writer who came back without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.group.core import GroupCore
from engine.history.timelines import Span
from protocol.errors import NotFound
from protocol.frames import FramePrefix
from protocol.positions import Cut, timeline_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """`fork` is on the head's lineage, `end` is the branch's; `spans` are its own, parents first."""

    fork: Cut
    end: Cut
    spans: tuple[Span, ...]

    @property
    def timeline(self) -> int:
        """What it is called by."""
        return self.end.timeline

    @property
    def starts(self) -> dict[int, int]:
        """Where its part of each of its timelines begins."""
        return {span.timeline: span.start for span in self.spans}

    @property
    def journal_bytes(self) -> int:
        """Bytes of its own frames."""
        return sum(span.end - span.start for span in self.spans)


def branches(group: GroupCore) -> list[Branch]:
    """Every branch, by fork."""
    lineage = {span.timeline: span for span in group.spans(group.writer.written)}
    clones = group.clone_timelines()
    found = []
    for timeline in group.timelines.all():
        if timeline.id in group.dropping or timeline.id in clones:
            continue
        end = Cut(timeline.id, group.end_of(timeline.id))
        on = lineage.get(timeline.id)
        if on is not None and end.position <= on.end:
            continue
        children = (each for each in group.timelines.children(timeline.id) if each.id not in clones)
        if any(child.fork >= end.position for child in children):
            continue  # it went on from its end: the child is the branch, or on the lineage
        found.append(_branch(group, lineage, end))
    return sorted(found, key=lambda branch: (branch.fork.position, branch.timeline))


def _branch(group: GroupCore, lineage: dict[int, Span], end: Cut) -> Branch:
    own = []
    fork = Cut(0, 0)
    for span in reversed(group.timelines.lineage(end.timeline, end.position)):
        on = lineage.get(span.timeline)
        if on is not None:
            fork = Cut(span.timeline, min(span.end, on.end))
            if span.end > on.end:
                own.append(Span(span.timeline, span.lane, on.end, span.end))
            break
        own.append(span)
    return Branch(fork=fork, end=end, spans=tuple(reversed(own)))


def prefixes_of(group: GroupCore, branch: Branch) -> Iterator[FramePrefix]:
    """Those of its own frames, in order."""
    for span in branch.spans:
        yield from group.reader.prefixes(span.timeline, span.start, span.end)


def own_part(group: GroupCore, branch: Branch) -> list[Span]:
    """The part of a branch that no other branch goes through."""
    ends: dict[int, int] = {}
    for other in branches(group):
        if other.timeline != branch.timeline:
            for span in group.timelines.lineage(other.end.timeline, other.end.position):
                ends[span.timeline] = max(span.end, ends.get(span.timeline, 0))
    own = []
    for span in branch.spans:
        start = max(span.start, ends.get(span.timeline, 0))
        if start < span.end:
            own.append(Span(span.timeline, span.lane, start, span.end))
    return own


def find_branch(group: GroupCore, timeline: int) -> Branch:
    """The branch of that name; NotFound."""
    for branch in branches(group):
        if branch.timeline == timeline:
            return branch
    raise NotFound(
        f"group {group.name} has no branch {timeline_text(timeline)}",
        subject=group.name,
        next_step=f"`farshore branch list {group.name}`",
    )
