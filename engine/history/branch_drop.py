"""Dropping a branch: its versions leave the index, its files the disk, its rows the index, in this order.

    1. the drop is written down: from now on no cut of the branch is read, and a restart goes on with it
    2. a checkpoint, so that nothing of the branch is only in memory
    3. a sweep takes its versions out of the index, and those of bases that were put on it
    4. its segment files are removed, with those of such bases; a timeline of the head's lineage is cut back
       to where it was left
    5. its timelines, bases and records are taken out of the index, in one transaction; horizons and
       truncations of it, and the ends of what was left for other bases, are put back to where it left; and
       the note of step 1 goes

The versions must go before the timelines do: a lane that no timeline names is used again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.group.group import Group
from engine.history.bases import bases_within, held_before, left_without
from engine.history.branches import Branch, own_part
from engine.history.timelines import Base, Span
from engine.index.forgetting import ForgetPlan
from engine.journal.format import timeline_directory
from engine.retention.cut_bounds import BoundsOfCuts
from engine.retention.needed import lane_horizons
from protocol.errors import Busy, Corruption, FarshoreError, NotFound, Refused
from protocol.frames import NO_DIGEST
from protocol.positions import NO_TIMELINE, Cut

RETRY_S = 5.0
LOOK_AGAIN_S = 0.05


def check_droppable(group: Group, branch: Branch) -> None:
    """Busy while someone reads a cut of the branch; Refused if a clone stands on it, or if what can still be
    read looks through it, because a restore went back to it; Locked as the site's retention lock says."""
    group.lock.require_droppable(branch)
    own = {span.timeline: span.start for span in own_part(group, branch)}
    _require_no_clone(group, branch, own)
    held = [cut for cut in group.kept.leases.cuts() if _inside(branch, cut)]
    starts = branch.starts
    shown = [cut for cut in group.copies.cuts() if cut.position > starts.get(cut.timeline, cut.position)]
    backups = [copy for cut in shown for copy in group.copies.of_cut(group.spans(), cut)]
    if backups:
        raise Refused(
            f"backup {backups[0].label or f'{backups[0].id:016x}'} shows a cut of the branch",
            subject=group.name,
            position=str(backups[0].cut),
            next_step="keep the branch as long as the backup",
        )
    if held:
        raise Busy(
            f"{held[0]} of the branch is being read",
            subject=group.name,
            position=str(held[0]),
            next_step="disconnect the exports at its cuts first",
        )
    looked_through = _looked_through(group, branch) | {group.end}
    if not _may_be_seen(group, branch, looked_through, own):
        return
    cuts = {copy.cut for copy in group.copies.at(group.spans())} | looked_through
    bounds = BoundsOfCuts(group.timelines, group.volumes).of(cuts)
    for span in branch.spans:
        lane = group.timelines.get(span.timeline).lane
        if any(high > span.start for high in bounds.get(lane, ())) and not _only_below(group, span, bounds):
            raise Refused(
                "a volume was turned back to a cut of the branch, and what it was then can still be read",
                subject=group.name,
                position=str(branch.fork),
                next_step="turn it back to another cut, and drop the branch once that is out of the window",
            )
    for base in bases_within(group.timelines, own.items()):
        if base.lane in bounds:
            raise Refused(
                f"what is kept looks through the base at {base.cut} of the branch",
                subject=group.name,
                position=str(base.cut),
                next_step="export what you need, or turn the volume back to another cut first",
            )


def _require_no_clone(group: Group, branch: Branch, own: dict[int, int]) -> None:
    """`own` is the branch's own part: timelines, each from a position on."""
    for clone in group.clones:
        if clone.timeline == branch.timeline:
            continue
        end = clone.end
        for span in group.timelines.lineage(end.timeline, end.position):
            if span.end > own.get(span.timeline, span.end):
                raise Refused(
                    f"clone {clone.name} stands on the branch",
                    subject=group.name,
                    position=str(clone.row.cut),
                    next_step=f"`farshore clone delete {clone.name}` first, or keep the branch",
                )


def _looked_through(group: Group, branch: Branch) -> set[Cut]:
    """Cuts whose view must stay: those held by readers, kept below the horizons, and at the ends of clones;
    what restores went back to whose outcome can still be read; and the horizons, as a restore below one shows
    above it until the next. One on the branch goes back to where that left."""
    table, retention = group.timelines, group.kept.retention
    cuts = group.kept.leases.cuts() | set(retention.kept) | {clone.end for clone in group.clones}
    cuts |= {horizon for horizon in retention.horizons if horizon.timeline in table}
    cuts = {branch.fork if _inside(branch, cut) else cut for cut in cuts}
    horizons = lane_horizons(table, retention.horizons)
    for entry in group.volumes.all_reverts():
        made = Cut(entry.timeline, entry.position + 1)
        if entry.timeline not in table or _inside(branch, made) or entry.cut.timeline not in table:
            continue
        if entry.position >= horizons.get(table.get(entry.timeline).lane, 0):
            cuts.add(entry.cut)
    return cuts


def _may_be_seen(group: Group, branch: Branch, cuts: set[Cut], own: dict[int, int]) -> bool:
    """False if nobody looks through the branch, which is told at a glance: from no cut, backup, place that a
    restore went back to or beginning of a base does a lineage lead into one of its lanes. True: it must be
    worked out. `own` is the branch's own part.

    What a cut sees ends in no lane later than its lineage does, and a cut has the lineage of any earlier
    one of its timeline: a few lineages stand for thousands of backups."""
    table = group.timelines
    lanes: dict[int, int] = {}
    for span in branch.spans:
        lane = table.get(span.timeline).lane
        lanes[lane] = min(span.start, lanes.get(lane, span.start))
    if bases_within(table, own.items()) or any(base.lane in lanes for base in table.bases):
        return True
    ends: dict[int, int] = {}

    def look_from(cut: Cut) -> None:
        if cut.position > ends.get(cut.timeline, -1):
            ends[cut.timeline] = cut.position

    for cut in cuts:
        look_from(cut)
    for cut in group.copies.cuts():
        if cut.position > ends.get(cut.timeline, -1) and not _inside(branch, cut):  # that goes with it
            look_from(cut)
    for entry in group.volumes.all_reverts():
        if not _inside(branch, Cut(entry.timeline, entry.position + 1)):
            look_from(entry.cut)
    for base in table.bases:
        if base.start is not None:
            look_from(base.start)
    return any(
        span.end > lanes.get(span.lane, span.end)
        for timeline, end in ends.items()
        if timeline in table
        for span in table.lineage(timeline, end)
    )


def _only_below(group: Group, span: Span, bounds: dict[int, tuple[int, ...]]) -> bool:
    """Whether the bounds of the branch's lane past its start are those of the head's own lineage, which has
    that lane up to another fork only."""
    lane = group.timelines.get(span.timeline).lane
    own = {each.end for each in group.spans(group.writer.written) if each.lane == lane}
    return all(high in own for high in bounds.get(lane, ()) if high > span.start)


def _inside(branch: Branch, cut: Cut) -> bool:
    return any(span.timeline == cut.timeline and cut.position > span.start for span in branch.spans)


class BranchDrops:
    """Drops under way of one group. `on_done` is told the timeline of each that has ended."""

    def __init__(self, group: Group, on_done: Callable[[int], None]) -> None:
        self._group = group
        self._on_done = on_done

    def resume(self) -> None:
        """Go on with what a restart interrupted. Corruption, with nothing begun, if that would drop a part of
        the head's own lineage: no such drop was ever written down."""
        group = self._group
        drops = group.state.drops(group.name)
        ends = {span.timeline: span.end for span in group.spans(group.writer.written)}
        for name, spans in drops.items():
            if any(start < ends.get(timeline, 0) for timeline, start in spans):
                raise Corruption(
                    f"the row state.mdb drops {group.name} {name:016x} would drop what the head stands on",
                    subject=group.name,
                    next_step="put state.mdb back from a backup of the data directory",
                )
        for name, spans in drops.items():
            self._carry_on(name, [span for span in spans if span[0] in group.timelines])

    def begin(self, branch: Branch) -> None:
        """Drop a branch, or a clone as one; `check_droppable` first. OSError: nothing was begun."""
        group = self._group
        spans = [(span.timeline, span.start) for span in own_part(group, branch)]
        group.state.put_drop(group.name, branch.timeline, spans)
        group.emit("branch.dropping", group=group.name, timeline=f"{branch.timeline:016x}")
        self._carry_on(branch.timeline, spans)

    def _carry_on(self, name: int, spans: list[tuple[int, int]]) -> None:
        group = self._group
        group.dropping |= dict(spans)
        bases = bases_within(group.timelines, spans)
        lanes = tuple((group.timelines.get(timeline).lane, start) for timeline, start in spans)
        lanes += tuple((base.lane, 0) for base in bases)

        def indexed(_: Cut) -> None:
            if all(group.checkpoints.indexed(timeline) for timeline, _ in spans):
                group.reclaim.sweep(lanes, lambda: self._remove(name, spans))
            else:
                group.checkpoints.when_indexed(indexed)

        group.checkpoints.when_indexed(indexed)

    def _remove(self, name: int, spans: list[tuple[int, int]]) -> None:
        """Files, then rows. Not beside a checkpoint or a truncation, whose plans still name the timelines;
        and where there is one after the other, none begins before this is done. A checkpoint that failed is
        not waited for: its next try names what there is then, and may lack the room that a truncation, held
        back here, would make."""
        group = self._group
        self._hold(name, on=True)
        checkpointing = group.checkpoints.running and not group.checkpoints.failing
        if checkpointing or group.reclaim.running:
            group.clock.call_later(LOOK_AGAIN_S, lambda: self._remove(name, spans))
            return
        try:
            plan = self._taken_out(spans)
        except (FarshoreError, OSError) as error:
            group.emit("branch.drop_failed", group=group.name, error=str(error))
            group.clock.call_later(RETRY_S, lambda: self._remove(name, spans))
        else:
            self._forget(name, spans, plan)
        self._hold(name, on=False)

    def _hold(self, name: int, *, on: bool) -> None:
        who = f"drop {name:016x}"
        self._group.checkpoints.hold(who, on=on)
        self._group.reclaim.hold(who, on=on)

    def _taken_out(self, spans: list[tuple[int, int]]) -> ForgetPlan:
        """What is to leave the index once files and timelines are gone. FarshoreError or OSError: no timeline
        is."""
        group = self._group
        bases = bases_within(group.timelines, spans)
        parts = []
        for timeline, start in spans:
            parts.append((timeline, start, self._digest_left(timeline, start)))
            self._remove_files(timeline, start)
        for base in bases:
            group.remains.remove_files(base.timeline)
        table = group.timelines
        ends = {
            timeline: held_before(table, timeline, start) if digest else table.get(timeline).fork
            for timeline, start, digest in parts
        }
        # Before its timeline: a base whose cut is on no lineage would fail whoever asks what is held.
        left = [self._left(base, ends) for base in table.bases if base not in bases]
        changed = [base for base in left if base not in table.bases]
        group.kept.dropped_for_good(spans)
        table.bases = left
        for timeline, start in spans:
            group.records.forget(timeline, start)
            if group.timelines.get(timeline).fork == start:
                group.timelines.remove(timeline)
                group.head.left.pop(timeline, None)
            else:
                group.head.left[timeline] = ends[timeline]
        return ForgetPlan(parts=tuple(parts), left=tuple((base.timeline, base.left) for base in changed))

    def _left(self, base: Base, ends: dict[int, int]) -> Base:
        """A base that stays. What both histories had before the branch left stays here, too, if all of it can
        be read: below a horizon on the branch it was thinned for that one."""
        group = self._group
        place = left_without(group.timelines, base, ends)
        if place != base.left and not (place.timeline and group.kept.readable(place)):
            place = Cut(NO_TIMELINE, 0)
        return replace(base, left=place)

    def _forget(self, name: int, spans: list[tuple[int, int]], plan: ForgetPlan) -> None:
        def done(error: Exception | None, _: tuple[int, ...]) -> None:
            if error is None:
                self._forgotten(name, spans)
                return
            # Nothing is read through its rows meanwhile. What was done though the answer was lost is no harm.
            self._group.emit("branch.drop_failed", group=self._group.name, error=str(error))
            self._group.clock.call_later(RETRY_S, lambda: self._forget(name, spans, plan))

        self._group.checkpoints.indexer.start(plan, done)

    def _digest_left(self, timeline: int, start: int) -> bytes:
        """What the next frame of a timeline would continue that is cut back to `start`; empty if no frame of
        it is held then."""
        group = self._group
        fork = group.timelines.get(timeline).fork
        held = held_before(group.timelines, timeline, start)
        if start == fork:
            return NO_DIGEST
        if held <= fork:
            return b""
        try:
            return bytes(group.reader.digest_at(group.timelines, timeline, held))
        except NotFound:
            # Truncated past a cut that was not kept, as only a base that stands on nothing leaves it.
            if group.kept.retention.truncated_to(timeline) > held:
                return b""
            raise

    def _remove_files(self, timeline: int, start: int) -> None:
        """Durably: of what came back in a power loss after its rows had gone nobody would know what it is."""
        group, directory = self._group, timeline_directory(timeline)
        cut_back = []
        for segment in group.segments.of_timeline(timeline):
            if segment.start >= start:
                group.segments.forget(segment)
                group.disk.remove(segment.path)
            elif segment.start + segment.size > start:
                file = group.segments.file(segment)
                file.truncate(start - segment.start)
                segment.cut(start)
                cut_back.append(file)
        if group.disk.exists(directory):
            group.disk.sync(cut_back, [directory])

    def _forgotten(self, name: int, spans: list[tuple[int, int]]) -> None:
        group = self._group
        try:
            group.state.remove_drop(group.name, name)
        except (FarshoreError, OSError) as error:
            # Nothing else is left of it: a start meanwhile finds so.
            group.emit("branch.drop_failed", group=group.name, error=str(error))
            group.clock.call_later(RETRY_S, lambda: self._forgotten(name, spans))
            return
        for timeline, _ in spans:
            group.dropping.pop(timeline, None)
        group.emit("branch.dropped", group=group.name, timeline=f"{name:016x}")
        self._on_done(name)
