"""Looking at what a site holds: its volumes at a cut, its backups, its branches, its journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.group.group import Group
from engine.history.bases import gap_at, spans_after
from engine.history.branches import Branch, branches
from engine.history.held_frames import held_pieces
from protocol.frames import Frame
from protocol.limits import SECTOR_BYTES
from protocol.positions import Cut
from tests.sim.content import Content, Contents
from tests.sim.history import History, Violation, read_view


def check_journal(history: History, site: str, group: Group) -> None:
    """Read all of the head's lineage."""
    for frame in journal_frames(history, site, group):
        history.check_frame(site, frame)


def journal_frames(history: History, site: str, group: Group) -> Iterator[Frame]:
    """The frames of the head's lineage that the journal still has: none before a base, none truncated. Where
    they begin and end the site must know the digest."""
    digest: bytes | None
    spans, digest = spans_after(group.timelines, group.spans(group.writer.written))
    for span in spans:
        start = span.start
        truncated = group.kept.retention.truncated.get(span.timeline)
        if truncated is not None and truncated[0] > span.end:
            digest = None  # nothing of it is left, nor of what its timeline had past the fork
            continue
        if truncated is not None and truncated[0] > start:
            start, (digest, _) = truncated
        known = history.moments.get(Cut(span.timeline, start))
        if known is not None and digest is not None and known.digest != digest:
            raise Violation(f"L3: {site} says another digest at {Cut(span.timeline, start)}")
        for frame in group.reader.frames(span.timeline, start, span.end, digest):
            digest = frame.prefix.digest
            yield frame
    if digest != group.head.digest:
        raise Violation(f"L3: {site} says another digest than its journal has at {group.end}")


def check_branches(history: History, site: str, group: Group) -> None:
    """Everything that is held here beside the head's lineage is a branch that can be named, and read."""
    lineage = {span.timeline: span.end for span in group.spans(group.writer.written)}
    known = branches(group)
    for branch in known:
        _check_branch_frames(history, site, group, branch)
        check_cut(history, site, group, branch.end)
    for timeline in group.timelines.all():
        if timeline.id in group.dropping:
            continue
        end = Cut(timeline.id, group.end_of(timeline.id))
        if lineage.get(timeline.id, -1) >= end.position:
            continue
        if not any(history.tree.holds(branch.end, end) for branch in known):
            raise Violation(f"{site} holds {end}, which is on no branch")


def _check_branch_frames(history: History, site: str, group: Group, branch: Branch) -> None:
    """All of its own frames that came here: in the gap below a base there are none."""
    table, starts = group.timelines, branch.starts
    for spans, _ in held_pieces(table, table.lineage(branch.end.timeline, branch.end.position)):
        for span in spans:
            if span.timeline not in starts:
                continue
            # Of what was truncated before it was left there are no frames.
            truncated = group.kept.retention.truncated.get(span.timeline, (0,))[0]
            start = max(span.start, starts[span.timeline], truncated)
            for frame in group.reader.frames(span.timeline, start, span.end, None):
                history.check_frame(site, frame)


def check_cut(history: History, site: str, group: Group, cut: Cut, contents: Contents | None = None) -> None:
    """The volumes at a cut, at any site."""
    if contents is None:
        contents = history.moments[cut].contents
    for name, content in sorted(contents.items()):
        view = group.kept.view_at(name, cut)
        if view.size_bytes != history.moments[cut].sizes[view.volume]:
            raise Violation(f"L4: {site} at {cut} gives {name} {view.size_bytes} bytes")
        wrong = content.mismatch(0, read_view(view, content.sectors), settle=False)
        if wrong:
            raise Violation(f"L4: {site} at {cut}, {name}: {wrong}")
        history.checked += 1
        _check_extents(site, cut, content, view.extents(0, view.size_bytes))


def _check_extents(site: str, cut: Cut, content: Content, extents: Iterable[tuple[int, bool]]) -> None:
    """What is said to be a hole must be zeroes."""
    at = 0
    for size_bytes, data in extents:
        if not data and not content.is_zero(at // SECTOR_BYTES, size_bytes // SECTOR_BYTES):
            raise Violation(f"L4: {site} at {cut} says that there are only zeroes from {at} on")
        at += size_bytes


def check_backups(history: History, site: str, group: Group, *, whole: bool) -> None:
    """Every backup that was answered, as far as the site holds the journal; with its bytes if `whole`."""
    for backup in history.backups:
        if not history.tree.holds(group.end, backup.mark):
            continue
        copy = group.copies.find(group.spans(), backup.label, group.name)
        if copy.cut != backup.cut:
            raise Violation(f"L4: {site} has backup {backup.label} at {copy.cut}, not {backup.cut}")
        if not group.kept.readable(copy.cut):
            # It never came here, or its mark came with a base, or it is of an earlier cut: given up before
            # this site heard of it.
            in_gap = any(gap_at(group.timelines, cut) is not None for cut in (copy.cut, backup.mark))
            if backup.cut.position == backup.began and not in_gap:
                raise Violation(f"L4: {site} gave up backup {backup.label} at {copy.cut}")
            continue
        if whole:
            check_cut(history, site, group, copy.cut, backup.contents)
