"""`farshore timeline`: what was written when, and what happened besides."""

from __future__ import annotations

from bisect import bisect_right
from typing import Annotated

import typer

from console.figures import UNKNOWN, local_text, size_text, utc_ns
from console.session import Session, session_of
from protocol.commands.base import check_name
from protocol.commands.cut import CutResolve
from protocol.commands.timeline import BUCKETS_MAX, Timeline, TimelineReply
from protocol.cut_text import CutTime
from protocol.errors import UsageError

BAR_CELLS = 20
BAR = "▇"


def timeline(
    ctx: typer.Context,
    group: Annotated[str, typer.Argument(metavar="G", help="A group.")],
    begin: Annotated[str, typer.Option("--from", metavar="CUT", help="From there on: 18:02, 2d.")] = "1d",
    end: Annotated[str, typer.Option("--to", metavar="CUT", help="Up to there.")] = "now",
    buckets: Annotated[int, typer.Option(min=1, max=BUCKETS_MAX, help="Into so many spans of time.")] = 24,
) -> None:
    """Bytes written over time, with backups, restores, switchovers and takeovers."""
    session = session_of(ctx)
    check_name(group, "group")
    first, last = (_moment_ns(session, group, text) for text in (begin, end))
    if last - first < buckets:
        raise UsageError(f"--to {end} is not after --from {begin}", subject=end, next_step="name a later one")
    data = session.call(Timeline(group=group, from_ns=first, to_ns=last, buckets=buckets))
    session.output.result("timeline", data, lambda: _show(session, data))


def _moment_ns(session: Session, group: str, text: str) -> int:
    cut = session.since(text)
    if isinstance(cut, CutTime):
        return cut.utc_ns
    time = session.call(CutResolve(group=group, cut=cut)).time
    if time is None:
        raise UsageError(f"{text} has no time", subject=text, next_step="name a time")
    return utc_ns(time)


def _show(session: Session, data: TimelineReply) -> None:
    output = session.output
    most = max((each.bytes or 0 for each in data.buckets), default=0)
    starts = [utc_ns(each.time) for each in data.buckets]
    happened: list[list[str]] = [[] for _ in starts]
    for mark in data.marks:
        place = bisect_right(starts, utc_ns(mark.time)) - 1
        happened[max(place, 0)].append(f"{mark.kind} {mark.name}".strip())
    rows = []
    for each, marks in zip(data.buckets, happened, strict=True):
        size = UNKNOWN if each.bytes is None else size_text(each.bytes)
        cells = -(-BAR_CELLS * (each.bytes or 0) // most) if most else 0
        row = [local_text(each.time, session.zone), size, ", ".join(marks)]
        rows.append([*row[:2], BAR * cells, row[2]] if output.is_terminal else row)
    columns = ("time", "bytes", "", "marks") if output.is_terminal else ("time", "bytes", "marks")
    output.table(columns, rows, empty="nothing")
    if data.marks_left_out:
        output.note(f"{data.marks_left_out} older marks are left out")
    if not data.exact:
        output.note("not every frame was looked at: some bytes are spread evenly over their segment's time")
