"""Opening a group: from what is on disk to a group that can be read and written.

    1. timelines and records from the index; timelines that began after the checkpoint from their first frames
    2. every frame past what is indexed, of the head's lineage and of branches: checked, into memtable and
       records
    3. the torn tail, if any, cut and the journal made durable, before anything is read or appended
    4. orphans removed: timelines that a crash kept from becoming the head, which hold nothing but the frame
       that says how they began. One that was the head stays, whatever it holds: others may have left it, or
       know of it

A timeline becomes the head once its first frame is durable, so the first frame of the head and of each of its
ancestors was promised.

Damage is `Corruption` with its position: the group is then not opened, and nothing was changed. A frame that
is whole and not understood is read past (engine.history.unread); but not the first of a timeline that the
index does not know: nobody can say what it continues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from engine.group.group import Group
from engine.group.reaching import check_reaches, does_not_reach
from engine.history.base_recovery import adopt_files, head_after_bases
from engine.history.base_rows import load_bases, load_pending
from engine.history.bases import gap_at, spans_from_base
from engine.history.timelines import Timeline
from engine.history.unread import UnreadFrame, is_unread, read_frame, unread_from_row, unread_record
from engine.index.indexed_history import (
    IndexedTimeline,
    load_checkpoint,
    load_records,
    load_timelines,
    record_row,
)
from engine.journal.format import (
    BASE_SPARE_PATH,
    JOURNAL_DIRECTORY,
    SPARE_PATH,
    timeline_directory,
    timeline_from_name,
)
from engine.journal.reader import BadFrame, time_at
from engine.journal.recovery import (
    JournalEnd,
    make_durable,
    name_stray,
    nonzero_from,
    settle,
    shorten,
    walk_to_end,
)
from protocol.errors import Corruption, NotFound, RemoteProtocolError
from protocol.events import Row, TimelineBegan, record_from_row
from protocol.frames import NO_DIGEST, Frame, FrameError, decode_rows
from protocol.positions import POSITION_MAX, Cut, timeline_text

# A timeline's name, its parent's and its group's at their longest fit well.
FIRST_FRAME_BYTES_MAX = 1024


@dataclass(slots=True)
class Recovered:
    """What opening a group found: frames and bytes replayed since the checkpoint, which of them are not
    understood, and the torn tail."""

    frames: int = 0
    replayed_bytes: int = 0
    torn_bytes: int = 0
    torn_at: str = ""
    reason: str = ""
    removed: list[str] = field(default_factory=list)
    unread: list[UnreadFrame] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A timeline that the index does not know. `began` is None if its first frame is not valid; `alone`:
    nothing but a first frame can be in it."""

    timeline: int
    start: int
    began: TimelineBegan | None
    alone: bool


def recover_group(
    group: Group,
    progress: Callable[[int], None] = lambda _: None,
    *,
    settled: bool = False,
    later: list[Callable[[], None]] | None = None,
) -> Recovered:
    """Open a group. Corruption if what was promised cannot be read; OSError if the disk fails. `progress` is
    told how many bytes were replayed, with each frame.

    Groups that are opened together wait for the disk together: their heads were `settled` before, and what is
    put into `later` is called, with nothing in between, before anything is read or appended."""
    found = Recovered()
    progress(0)
    if not group.disk.exists(JOURNAL_DIRECTORY):
        group.disk.make_directory(JOURNAL_DIRECTORY)
    for spare in (SPARE_PATH, BASE_SPARE_PATH):
        if group.disk.exists(spare):
            group.disk.remove(spare)
    group.segments.load()
    head = group.state.group(group.name).head
    try:
        with group.store.read() as transaction:
            indexed = load_timelines(transaction)
            checkpoint = load_checkpoint(transaction)
            bases = load_bases(transaction)
            group.timelines.bases = standing = [base for base in bases if base.cut.timeline in indexed]
            pending = load_pending(transaction)
            group.reclaim.load(transaction)
            for timeline, position, frame_position, utc_ns, row in load_records(transaction):
                with record_row(timeline, position):
                    _apply_indexed(group, (timeline, position, frame_position, utc_ns, row))
    except RemoteProtocolError as error:
        raise Corruption(
            f"the index of group {group.name} is damaged: {error}",
            subject=f"groups/{group.name}/index.mdb",
            next_step="nothing was changed; restore the file, or read the volumes at the peer",
        ) from error
    head = head_after_bases(group, standing, head, checkpoint)
    group.reclaim.remove_truncated()
    orphans = _load_timelines(group, indexed, head, adopt_files(group, bases, pending))
    group.reclaim.start()
    group.unread.drop_truncated({each: end for each, (end, _) in group.kept.retention.truncated.items()})
    if head == 0:
        _remove_orphans(group, orphans, found)
        return found
    if checkpoint is not None and checkpoint.timeline == head:
        group.checkpoints.reached = checkpoint.position
    start, _ = _start(group, indexed, group.timelines.get(head))
    if not settled:
        settle(group.disk, group.segments, head, start)
    end = _replay(group, indexed, head, found, progress)
    shorten(group.disk, group.segments, head, end.position)
    durable = partial(make_durable, group.disk, group.segments, head, start)
    if later is None:
        durable()
    else:
        later.append(durable)
    _remove_orphans(group, orphans, found)
    group.head.put(head, end.digest, end.utc_ns)
    _forget_heads(group, indexed)
    group.clones.load()
    group.writer.start(head, group.timelines.get(head).lane, end.position)
    if end.torn_bytes:
        found.torn_bytes, found.torn_at, found.reason = (
            end.torn_bytes,
            str(Cut(head, end.position)),
            end.reason,
        )
    return found


def _apply_indexed(group: Group, indexed: tuple[int, int, int, int, Row]) -> None:
    """A row of the index's records. One that is no record any more was journaled by an older version."""
    timeline, position, frame_position, utc_ns, row = indexed
    if is_unread(row):
        group.unread.apply(unread_from_row(timeline, position, row))
        return
    try:
        record = record_from_row(row)
    except RemoteProtocolError as error:
        prefix = group.reader.prefix_at(timeline, frame_position)
        end = prefix.end if prefix is not None else position + 1
        group.unread.apply(unread_record(timeline, frame_position, end, row, error))
        return
    group.records.apply(timeline, frame_position, position, utc_ns, record)


def _load_timelines(
    group: Group, indexed: dict[int, IndexedTimeline], head: int, apart: set[int]
) -> list[int]:
    """Fill the table of timelines and give every one its lane. `apart` are not of them. Returns the orphans,
    which are left out."""
    for row in sorted(indexed.values(), key=lambda row: row.timeline.fork):
        group.timelines.add(row.timeline)
    fresh = [
        _look_at(group, each)
        for each in group.segments.timelines()
        if each not in group.timelines and each not in apart
    ]
    needed = _lineages_of(fresh, {head, *group.state.heads(group.name)})
    needed |= group.clones.known()
    orphans = []
    begun: list[tuple[int, TimelineBegan]] = []
    for each in fresh:
        if each.alone and (each.timeline not in needed or _never_followed(group, each, head)):
            orphans.append(each.timeline)
        elif each.began is None:
            raise Corruption(
                f"the first frame of timeline {timeline_text(each.timeline)} is damaged",
                subject=timeline_directory(each.timeline),
                position=str(Cut(each.timeline, each.start)),
                next_step="nothing was changed; restore the file, or read the volumes at the peer",
            )
        else:
            begun.append((each.timeline, each.began))
    for timeline_id, began in sorted(begun, key=lambda item: item[1].fork):
        if began.parent and began.parent not in group.timelines:
            raise does_not_reach(group, Cut(began.parent, began.fork), "fork")
        group.timelines.add(_timeline(group, timeline_id, began, head))
    if head and head not in group.timelines:
        raise Corruption(
            f"the head timeline {timeline_text(head)} is not on disk",
            subject=timeline_directory(head),
            next_step="nothing was changed; restore the directory, or read the volumes at the peer",
        )
    for timeline in group.timelines.all():
        group.segments.set_lane(timeline.id, timeline.lane)
    group.head.put(head, NO_DIGEST, 0)
    return orphans


def _never_followed(group: Group, fresh: _Fresh, head: int) -> bool:
    """Whether a timeline that is known because this site was about to follow it never became the head: its
    first frame is torn, and a move makes that durable before anything else."""
    return fresh.began is None and fresh.timeline != head and group.state.followed(group.name, fresh.timeline)


def _timeline(group: Group, timeline: int, began: TimelineBegan, head: int) -> Timeline:
    goes_on = began.parent and group.reader.prefix_at(began.parent, began.fork) is not None
    certain = began.sealed and not goes_on and began.parent != head
    return Timeline(
        id=timeline,
        parent=began.parent,
        fork=began.fork,
        generation=began.generation,
        writer=began.writer,
        lane=group.timelines.lane_for_child(began.parent, began.fork, certain=certain),
    )


def _look_at(group: Group, timeline: int) -> _Fresh:
    """What the first frame of a timeline says, and whether anything follows it."""
    segments = group.segments.of_timeline(timeline)
    first = segments[0]
    began, rest = None, first.start + FIRST_FRAME_BYTES_MAX
    try:
        frame = next(iter(group.reader.frames(timeline, first.start, first.start + 1, None)))
        record = record_from_row(decode_rows(frame.prefix, frame.raw)[0])
        if isinstance(record, TimelineBegan) and record.fork == first.start:
            began, rest = record, frame.prefix.end
    except (FrameError, RemoteProtocolError):
        pass
    more = len(segments) > 1 or group.reader.prefix_at(timeline, rest) is not None
    alone = not more and nonzero_from(group.segments, first, rest) == 0
    return _Fresh(timeline, first.start, began, alone)


def _lineages_of(fresh: list[_Fresh], heads: set[int]) -> set[int]:
    """These and their ancestors, as far as the first frames tell."""
    parents = {each.timeline: each.began.parent for each in fresh if each.began is not None}
    found = set(heads)
    for head in heads:
        while head in parents:
            head = parents[head]
            found.add(head)
    return found


def _remove_orphans(group: Group, orphans: list[int], found: Recovered) -> None:
    for timeline in orphans:
        for segment in group.segments.of_timeline(timeline):
            group.segments.forget(segment)
            group.disk.remove(segment.path)
    for name in group.disk.list_directory(JOURNAL_DIRECTORY):
        path = f"{JOURNAL_DIRECTORY}/{name}"
        if timeline_from_name(name) is not None and not group.disk.list_directory(path):
            group.disk.remove(path)
            found.removed.append(name)


def _forget_heads(group: Group, indexed: dict[int, IndexedTimeline]) -> None:
    """Those that the index knows, and those that were dropped, need no note of their own. The head does: the
    note says whether another site brought its frames."""
    noted = group.state.heads(group.name) - {group.head.timeline}
    known = {each for each in noted if each in indexed or each not in group.timelines}
    if known:
        group.state.forget_heads(group.name, known)


def _start(group: Group, indexed: dict[int, IndexedTimeline], timeline: Timeline) -> tuple[int, bytes]:
    """Where the walk of a timeline begins, and the digest there."""
    row = indexed.get(timeline.id)
    if row is not None and row.digest:
        return row.indexed, row.digest
    if timeline.parent == 0:
        return timeline.fork, NO_DIGEST
    try:
        digest = group.reader.digest_at(group.timelines, timeline.parent, timeline.fork)
    except NotFound as error:
        raise does_not_reach(group, Cut(timeline.parent, timeline.fork), "fork") from error
    return timeline.fork, digest


def _replay(
    group: Group,
    indexed: dict[int, IndexedTimeline],
    head: int,
    found: Recovered,
    progress: Callable[[int], None],
) -> JournalEnd:
    """Walk every timeline from what is indexed to its end, parents first; returns the head's."""
    needed = {span.timeline: span.end for span in spans_from_base(group.timelines, head)}
    clones = group.clones.known()
    end: JournalEnd | None = None
    for timeline in group.timelines.all():

        def take(frame: Frame, lane: int = timeline.lane, of_head: bool = timeline.id == head) -> None:
            said = read_frame(frame)
            if said.unread is not None:
                group.unread.apply(said.unread)
                found.unread.append(said.unread)
            group.take(frame.prefix, lane, said.rows)
            group.head.apply(frame.prefix)
            if of_head:
                # What was durable in an earlier run is so still.
                group.reclaim.promised = frame.prefix.durable
            found.frames += 1
            found.replayed_bytes += frame.prefix.frame_bytes
            progress(found.replayed_bytes)

        if _never_came(group, indexed, timeline):
            group.head.left[timeline.id] = timeline.fork
            continue
        start, digest = _start(group, indexed, timeline)
        if timeline.id == head:
            if start > timeline.fork and (before := check_reaches(group, head, start, digest)) is not None:
                group.reclaim.promised = before.durable
            end = walk_to_end(
                group.reader,
                group.segments,
                timeline=head,
                start=start,
                digest=digest,
                promised=max(start, timeline.fork + 1, group.checkpoints.reached),
                own=timeline.writer == group.site and not group.state.followed(group.name, head),
                on_frame=take,
            )
        else:
            if timeline.id in clones:
                settle(group.disk, group.segments, timeline.id, start)
            _replay_left(group, timeline, start, digest, needed.get(timeline.id, 0), take)
    if end is None:
        raise Corruption(f"the head timeline {timeline_text(head)} is not on disk", subject=group.name)
    if end.utc_ns == 0:
        time = time_at(group.reader, group.timelines, Cut(head, end.position))
        end = replace(end, utc_ns=time or group.head.utc_ns)
    return end


def _never_came(group: Group, indexed: dict[int, IndexedTimeline], timeline: Timeline) -> bool:
    """Whether all of a timeline lies in the gap below a base, or what came of it has gone."""
    row = indexed.get(timeline.id)
    if row is None or row.digest:
        return False
    if group.kept.retention.truncated_to(timeline.id) and not group.segments.of_timeline(timeline.id):
        return True
    return gap_at(group.timelines, Cut(timeline.id, timeline.fork + 1)) is not None


def _replay_left(
    group: Group, timeline: Timeline, start: int, digest: bytes, needed: int, take: Callable[[Frame], None]
) -> None:
    """The rest of a timeline that was left: all of it was made durable then, but for a clone's last. Its end
    is where its frames end, which must be at or past `needed`."""
    end = start
    if start < needed and start > timeline.fork:
        check_reaches(group, timeline.id, start, digest)
    if group.reader.prefix_at(timeline.id, start) is not None or start < needed:
        try:
            for frame in group.reader.frames(timeline.id, start, POSITION_MAX, digest):
                take(frame)
                end = frame.prefix.end
        except BadFrame as error:
            if end < needed:
                damage = Corruption(
                    f"the journal is damaged at {error}, below a fork",
                    subject=timeline_directory(timeline.id),
                    position=str(Cut(error.timeline, error.position)),
                    next_step="nothing was cut; restore the file, or read the volumes at the peer",
                )
                raise name_stray(group.reader, group.segments, timeline.id, damage) from error
    group.head.left[timeline.id] = end
    if end > start:
        group.checkpoints.head_moved(Cut(timeline.id, end), group.checkpoints.reached)
