"""Where shipping to a peer begins, from what the peer says it has.

    the peer ends                            then
    nowhere: it has nothing yet              ship from the root
    on this lineage, digest equal            ship from there
    past a fork, in a run of this writer     its tail becomes a branch there; ship from the fork
    past this head, nothing written since    begin this run's timeline, then as above
    anywhere else                            diverged: both sites wrote; nothing moves by itself

In sync means equal timeline, position and digest, nothing else (invariant 7).
"""

from __future__ import annotations

from engine.group import Group
from protocol.messages import Welcome
from protocol.positions import Cut


def where_to_start(group: Group, welcome: Welcome) -> Cut | None:
    """The cut to ship from; None if the peer has what this site never wrote. FarshoreError if this site's own
    journal cannot answer, or this run's timeline cannot begin."""
    if welcome.timeline == 0:
        spans = group.spans()
        return Cut(spans[0].timeline, 0) if spans else Cut(0, 0)
    held = Cut(welcome.timeline, welcome.written)
    span = next((s for s in group.spans() if s.timeline == held.timeline), None)
    if span is None:
        return None
    if held.timeline == group.head and held.position > group.writer.written:
        if group.timelines.get(held.timeline).writer != group.site:
            return None
        group.begin_writing()
        span = next(s for s in group.spans() if s.timeline == held.timeline)
    if held.position > span.end:
        if group.timelines.get(held.timeline).writer != group.site:
            return None
        return Cut(span.timeline, span.end)
    digest = group.reader.digest_at(group.timelines, held.timeline, held.position)
    return held if digest == welcome.digest else None
