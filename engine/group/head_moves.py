"""Moving a group's head: beginning this site's own timeline, and following another site's.

Every move is durable before anyone relies on it: the first frame in the new place is synced, then the head is
set, then the frame is taken in. What was written to the timeline that is left, past the fork, stays as a
branch.

A tail is left without being asked only if the site that now writes wrote it itself and had not called it
durable: a writer that came back without the end of its journal. Any other tail is left only by an operator's
word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.group.core import GroupCore
from engine.group.head import NotContiguous
from engine.group.serving import given_to, require_serving, took_over
from engine.group.whole import holds_together
from engine.history.bases import require_held
from engine.history.timelines import Span, Timeline, tail_after
from engine.history.unread import Said
from engine.journal.recovery import cut_tail, settle
from engine.retention.kept import KeptHistory
from protocol.errors import Diverged, FarshoreError, NotFound, Trimmed
from protocol.events import HandOver, Row, TimelineBegan
from protocol.frames import NO_DIGEST, Frame, check_frame, decode_rows, encode_frame
from protocol.positions import Cut, timeline_text


@holds_together
def begin_writing(group: GroupCore) -> None:
    """Make this run's own timeline, once: the first write after any start must not share positions with a
    tail that another site may have seen. Waits for two syncs. NoSpace or OSError leaves all as it was."""
    require_serving(group)
    if not group.head.began:
        begin_timeline(group)


def begin_timeline(group: GroupCore, *, authority: bool = False) -> None:
    """Begin a timeline of this site at the head's end. `authority`: it outranks every other that is known
    (takeover, switchover). Waits for two syncs. NoSpace or OSError leaves all as it was."""
    raised = authority or not group.head or given_to(group) or took_over(group)
    generation = _next_generation(group) if raised else group.generation
    sealed = group.head.sealed or bool(given_to(group))
    timeline, frame = first_frame(group, group.end, group.head.digest, generation=generation, sealed=sealed)
    _move(group, timeline, frame, decode_rows(frame.prefix, frame.raw))
    group.head.own()
    position = timeline.fork
    group.emit("timeline.began", group=group.name, timeline=timeline_text(timeline.id), position=position)


def first_frame(
    group: GroupCore, fork: Cut, digest: bytes, *, generation: int, sealed: bool
) -> tuple[Timeline, Frame]:
    """A new timeline of this site that leaves `fork`, where the digest is `digest`, and its first frame.
    `sealed`: nothing else goes on from there, at any site."""
    began = TimelineBegan(
        parent=fork.timeline,
        fork=fork.position,
        generation=generation,
        writer=group.site,
        group=group.name,
        sealed=sealed,
    )
    timeline = Timeline(
        id=group.new_id(),
        parent=fork.timeline,
        fork=fork.position,
        generation=generation,
        writer=group.site,
        lane=group.timelines.lane_for_child(fork.timeline, fork.position, certain=sealed),
    )
    frame = encode_frame(
        timeline=timeline.id,
        position=fork.position,
        utc_ns=group.next_utc_ns(),
        durable=fork.position,
        previous_digest=digest,
        rows=[began.to_row()],
        payload=(),
        payload_bytes=0,
    )
    return timeline, frame


def _next_generation(group: GroupCore) -> int:
    """One that outranks every authority known here: those held, one that a peer only came with, and the next
    one if this site gave it away and now takes the group back."""
    known = max(group.timelines.generation(), group.state.heard(group.name))
    return known + (2 if group.promises.handed_at(group.end) not in ("", group.site) else 1)


def hand_over(group: GroupCore, to: str) -> None:
    """Say as the journal's last event that the site `to` writes from here on. Durable here on return, before
    any other site can see it. OSError fails the group's writer, and no frame that is not durable is said."""
    rows = [HandOver(to=to).to_row()]
    if not group.head.began:
        begin_writing(group)
    writer = group.writer
    if writer.written > writer.durable:
        writer.sync_now()
    before = (writer.timeline, writer.lane, writer.written)
    frame = group.frame(rows, (), 0)
    writer.append(frame)
    try:
        writer.sync_now()
    except OSError:
        writer.back_to(*before)
        raise
    group.apply(frame, rows)
    group.emit("group.handed_over", group=group.name, object=to, position=str(group.end))


def follow_elsewhere(group: GroupCore, kept: KeptHistory, frame: Frame, said: Said, *, leave: bool) -> None:
    """Take a frame, which says that, not of the head: the first of a timeline that left what
    is held here, or the next of one that was left here. NotContiguous if it is neither, or if a tail would be
    left that may not be; Diverged as `require_leavable`; Trimmed if only a base can lead there."""
    prefix = frame.prefix
    end = 0  # of what is held here of a known timeline
    if prefix.timeline in group.timelines:
        timeline = group.timelines.get(prefix.timeline)
        end = _held_to(group, Cut(timeline.id, prefix.position))
        if not group.timelines.may_extend(timeline.id, end):
            raise Trimmed(
                f"timeline {timeline_text(timeline.id)} was known to end at {end}, and goes on",
                subject=group.name,
                position=str(Cut(timeline.id, end)),
                next_step="send a base",
            )
        fork = Cut(timeline.id, prefix.position)
    else:
        timeline = _began(group, frame, said)
        fork = Cut(timeline.parent, timeline.fork)
    tail = tail_after(group.spans(group.writer.written), fork) if group.head else []
    if not leave:
        require_leavable(group, tail, fork.position, timeline)
    if prefix.position < end:
        _back_onto(group, timeline, frame, end)
    else:
        digest = NO_DIGEST
        if fork.timeline:
            kept.require(fork)
            digest = group.reader.digest_at(group.timelines, fork.timeline, fork.position)
        check_frame(prefix, frame.raw, digest)
        kept.require_reverts(said.records)
        note_followed(group, timeline)
        _move(group, timeline, frame, said.rows)
    group.head.others()
    tail_bytes = sum(span.end - span.start for span in tail)
    group.emit(
        "timeline.followed",
        group=group.name,
        timeline=timeline_text(timeline.id),
        position=prefix.position,
        tail_bytes=tail_bytes,
    )
    if tail_bytes:
        group.emit("timeline.tail_kept", group=group.name, position=str(fork), bytes=tail_bytes)
    if prefix.position < end:
        raise NotContiguous(f"timeline {timeline_text(timeline.id)} was held here to {end}: go on from there")


def _back_onto(group: GroupCore, timeline: Timeline, frame: Frame, end: int) -> None:
    """Put the head at the end of what is held of a timeline that goes on further than this lineage shows: its
    frames were stored, and the move to it did not last. `frame` is the first of them, as it comes once more.
    NotContiguous if another one is held in its place."""
    start = frame.prefix.position
    settle(group.disk, group.segments, timeline.id, start)
    held = [each.prefix for each in group.reader.frames(timeline.id, start, end, None)]
    if held[0] != frame.prefix:
        raise NotContiguous(f"another frame is held here at {Cut(timeline.id, start)}")
    cut_tail(group.disk, group.segments, timeline.id, start, end)
    note_followed(group, timeline)
    _put_head(group, timeline, end, start, lambda: None)
    group.head.apply(held[-1])
    group.view_changed()


def require_leavable(group: GroupCore, tail: Sequence[Span], fork: int, timeline: Timeline) -> None:
    """Whether the tail of the head's lineage past `fork` may be left for another timeline, without an
    operator's word. NotContiguous if another site than that timeline's writer wrote any of it. Diverged if no
    power loss can have taken it from its writer: frames say how far their writer's journal was durable. A
    writer that comes back without that is an old copy of itself, and nobody guesses whose history stays."""
    if any(group.timelines.get(span.timeline).writer != timeline.writer for span in tail):
        raise NotContiguous(f"following {timeline_text(timeline.id)} would leave what another site wrote")
    for span in tail:
        last = group.reader.frame_before(span.timeline, span.end)
        if last is None or last.durable <= fork:
            continue
        durable = Cut(span.timeline, last.durable)
        text = f"{timeline_text(timeline.id)} leaves at {fork} what its writer called durable to {durable}"
        group.emit("timeline.turned_back", group=group.name, position=str(durable), reason=text)
        raise Diverged(
            f"{text}: is that site an old copy of its directory, or of its machine?",
            subject=group.name,
            position=str(durable),
            next_step=f"there: `farshore pair resync {group.name} --source local` or `--source remote` "
            "says whose stays",
        )


def _began(group: GroupCore, frame: Frame, said: Said) -> Timeline:
    """The timeline whose first frame this is."""
    prefix = frame.prefix
    began = said.records[0][1] if said.records else None
    if not isinstance(began, TimelineBegan) or len(said.rows) != 1 or began.fork != prefix.position:
        raise NotContiguous(f"timeline {timeline_text(prefix.timeline)} is not known here")
    if began.parent == 0:
        if group.head:
            raise NotContiguous(f"timeline {timeline_text(prefix.timeline)} does not leave what is here")
        ends_here = True
    else:
        if began.parent not in group.timelines:
            raise NotContiguous(f"timeline {timeline_text(began.parent)} is not held here")
        end = _held_to(group, Cut(began.parent, began.fork))
        ends_here = began.fork == end
    return Timeline(
        id=prefix.timeline,
        parent=began.parent,
        fork=began.fork,
        generation=began.generation,
        writer=began.writer,
        lane=group.timelines.lane_for_child(began.parent, began.fork, certain=began.sealed and ends_here),
    )


def _held_to(group: GroupCore, at: Cut) -> int:
    """Up to where frames of a known timeline are held here, of which something goes on from `at`.
    NotContiguous if that is further on; Trimmed if it lies in the gap below a base: nothing that was sent
    could close that, so the peer must not compare and send the same again, but a base."""
    try:
        end = group.end_of(at.timeline)
    except NotFound:
        end = 0
    if at.position > end:
        require_held(group.timelines, at, group.name)
        name = timeline_text(at.timeline)
        raise NotContiguous(f"timeline {name} is held here to {end}, not to {at.position}")
    return end


def note_followed(group: GroupCore, timeline: Timeline) -> None:
    """Frames of a timeline come from another site from now on. If this one wrote them once (it lost them, or
    is an old copy of itself), what they call durable was so in another life, and recovery must not hold this
    journal to it. Durable before the first of them is stored."""
    if timeline.writer == group.site:
        group.state.note_followed(group.name, timeline.id)
    group.head.followed = timeline.id


def _move(group: GroupCore, timeline: Timeline, frame: Frame, rows: Sequence[Row]) -> None:
    """Put the head on a timeline at the place of `frame`: all durable before anyone relies on it."""

    def store() -> None:
        group.writer.append(frame)
        group.writer.sync_now()

    _put_head(group, timeline, frame.prefix.position, frame.prefix.position, store)
    group.apply(frame, rows)
    group.view_changed()


def _put_head(
    group: GroupCore, timeline: Timeline, position: int, common: int, store: Callable[[], None]
) -> None:
    """The head is at `position` of a timeline, plus what `store` writes there; up to `common` the lineage is
    what it was."""
    writer = group.writer
    if timeline.id not in group.timelines:
        group.timelines.require_room(1)
    before = (writer.timeline, writer.lane, writer.written)
    left = group.end
    if writer.written > writer.durable:
        writer.sync_now()
    try:
        writer.start(timeline.id, timeline.lane, position)
        store()
    except (OSError, FarshoreError):
        writer.back_to(*before)
        raise
    try:
        group.state.set_head(group.name, timeline.id)
    except (OSError, FarshoreError):
        # A commit that failed may still be there after a restart, and names this timeline then.
        writer.back_to(*before, keep=True)
        raise
    if timeline.id not in group.timelines:
        group.timelines.add(timeline)
    group.head_moved(left, timeline.id, common)
