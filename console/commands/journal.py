"""`farshore journal show`: a group's frames and timelines, of a site or of a dead site's directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from console.commands.site import run_daemon
from console.figures import size_text
from console.session import Session, fixed_cut, position_argument, session_of
from protocol.commands.base import ROWS_MAX, check_name
from protocol.commands.cut import CutResolve
from protocol.commands.journal import FrameInfo, JournalShow, JournalShowReply, OfflineJournalReply
from protocol.cut_text import CutPosition, CutTime, NamedCut
from protocol.errors import NotFound

app = typer.Typer(help="A group's journal.", no_args_is_help=True, rich_markup_mode=None)


GroupArgument = Annotated[str, typer.Argument(metavar="G", help="A group.")]


@app.command("show")
def show_journal(
    ctx: typer.Context,
    group: GroupArgument,
    since: Annotated[
        str | None, typer.Option(metavar="CUT", help="From there on: TIMELINE:POSITION, a label, 18:02, 10m.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=ROWS_MAX, help="At most this many frames.")] = 50,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="A dead site's data directory, or a copy.")
    ] = None,
) -> None:
    """Frames of a group's journal and its timelines; by default the newest.

    With --dir no daemon is asked and nothing there is changed; the backups that can be read are shown too.
    There --since is TIMELINE:POSITION."""
    session = session_of(ctx)
    check_name(group, "group")
    if directory is None:
        start = None if since is None else _position(session, group, session.since(since))
        data = session.call(JournalShow(group=group, since=start, limit=limit))
    else:
        position_argument(since)
        words = ["journal", os.path.abspath(directory), f"--group={group}", f"--limit={limit}"]
        data = run_daemon([*words, *([f"--since={since}"] if since is not None else [])], OfflineJournalReply)
    session.output.result("journal.show", data, lambda: _show_journal(session, data))


def _position(session: Session, group: str, cut: NamedCut) -> CutPosition:
    if isinstance(cut, CutPosition):
        return cut
    try:
        return fixed_cut(session.call(CutResolve(group=group, cut=cut)))
    except NotFound as error:
        # All that was written came since a time before the first frame.
        first = _first(session, group) if isinstance(cut, CutTime) and error.subject == group else None
        if first is None:
            raise
        return first


def _first(session: Session, group: str) -> CutPosition | None:
    for each in session.call(JournalShow(group=group, limit=1)).timelines:
        if each.parent is None:
            return CutPosition(timeline=int(each.timeline, 16), position=0)
    return None


def _show_journal(session: Session, data: JournalShowReply) -> None:
    output = session.output
    for each in data.timelines:
        origin = f"from {each.parent}:{each.fork}" if each.parent else "the first"
        writer = each.writer or "?"
        output.line(f"timeline {each.timeline} by {writer}, generation {each.generation}, {origin}")
    output.table(
        ("position", "bytes", "time", "events", "kinds", "digest"),
        [_frame_row(session, frame) for frame in data.frames],
        empty="no frames",
    )
    if isinstance(data, OfflineJournalReply):
        for backup in data.backups:
            output.line(f"backup {backup.label or backup.id} at {session.cut_line(backup.cut)}")
        for note in data.notes:
            output.note(f"note: {note}")
    output.note(f"{data.segments} segments, {size_text(data.bytes)}")
    if data.next:
        output.note(f"more: `farshore journal show {data.group} --since {data.next}`")


def _frame_row(session: Session, frame: FrameInfo) -> tuple[str, ...]:
    kinds = " ".join(f"{name}:{count}" for name, count in sorted(frame.kinds.items()))
    if frame.unread:
        kinds = f"{kinds} not understood: {frame.unread}".strip()
    return (
        frame.position,
        str(frame.bytes),
        session.local(frame.time),
        str(frame.events),
        kinds,
        frame.digest[:16],
    )
