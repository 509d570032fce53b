"""`farshore branch`: histories that are kept although the head went another way."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from console.confirming import confirmed
from console.figures import UNKNOWN, size_text
from console.options import After, Limit
from console.session import Session, session_of
from protocol.commands.base import ROWS_MAX, check_name
from protocol.commands.branch import BranchDiff, BranchDiffReply, BranchDrop, BranchInfo, BranchList
from protocol.errors import UsageError

app = typer.Typer(
    help="Histories that are not on the way to the head.", no_args_is_help=True, rich_markup_mode=None
)

# Compares the contents of every volume, block by block.
DIFF_TIMEOUT_S = 3_600.0
DROP_TIMEOUT_S = 600.0

_TIMELINE = re.compile(r"[0-9a-f]{16}")

GroupArgument = Annotated[str, typer.Argument(metavar="G", help="A group.")]
TimelineArgument = Annotated[
    str, typer.Argument(metavar="TIMELINE", help="The branch, as `branch list` names it.")
]


@app.command("list")
def list_branches(
    ctx: typer.Context,
    group: GroupArgument,
    limit: Limit = None,
    after: After = None,
) -> None:
    """Every branch that this site holds, and where it left the head's history."""
    session = session_of(ctx)
    data = session.listed(BranchList(group=check_name(group, "group")), limit, after)

    def show() -> None:
        session.output.table(
            ("branch", "from", "to", "journal", "frames", "writer", "began", "ended", "backups"),
            [_row(session, branch) for branch in data.branches],
            empty=f"no branches: one history leads to {group}",
        )

    session.output.result("branch.list", data, show)
    session.say_more(data)


@app.command()
def diff(
    ctx: typer.Context,
    group: GroupArgument,
    timeline: TimelineArgument,
    limit: Annotated[int, typer.Option(min=1, max=ROWS_MAX, help="At most this many rows of each.")] = 100,
) -> None:
    """What a branch has that the head has not: its frames, and where the contents differ."""
    session = session_of(ctx)
    command = BranchDiff(
        group=check_name(group, "group"), timeline=_check_timeline(timeline, group), limit=limit
    )
    with session.output.activity(f"comparing {timeline} with the head of {group}"):
        data = session.call(command, DIFF_TIMEOUT_S)
    session.output.result("branch.diff", data, lambda: _show_diff(session, data))


@app.command()
def drop(
    ctx: typer.Context,
    group: GroupArgument,
    timeline: TimelineArgument,
    confirm: Annotated[
        str, typer.Option("--confirm", metavar="TIMELINE", help="The branch's name once more.")
    ] = "",
) -> None:
    """Forget a branch for good and give its space back."""
    session = session_of(ctx)
    check_name(group, "group")
    _check_timeline(timeline, group)

    def show() -> None:
        for branch in session.call(BranchList(group=group)).branches:
            if branch.timeline == timeline:
                _show_branch(session, branch)

    confirm = confirmed(session, confirm, timeline, "forget that branch for good", show=show)
    data = session.call(BranchDrop(group=group, timeline=timeline, confirm=confirm), DROP_TIMEOUT_S)

    def show_dropped() -> None:
        session.output.line(f"branch {timeline} of {group} dropped, {size_text(data.freed_bytes)} freed")

    session.output.result("branch.drop", data, show_dropped)


def _check_timeline(text: str, group: str) -> str:
    if not _TIMELINE.fullmatch(text):
        raise UsageError(
            f"{text!r} is no timeline: 16 hex digits", subject=text, next_step=f"farshore branch list {group}"
        )
    return text


def _row(session: Session, branch: BranchInfo) -> tuple[str, ...]:
    return (
        branch.timeline,
        branch.start.text,
        branch.to.text,
        size_text(branch.bytes),
        str(branch.frames),
        branch.writer or UNKNOWN,
        session.local(branch.began),
        session.local(branch.ended),
        " ".join(branch.backups) or UNKNOWN,
    )


def _show_branch(session: Session, branch: BranchInfo) -> None:
    session.output.fields(
        [
            ("branch", branch.timeline),
            ("writer", branch.writer),
            ("from", session.cut_line(branch.start)),
            ("to", session.cut_line(branch.to)),
            ("journal", f"{size_text(branch.bytes)} in {branch.frames} frames"),
            ("backups", " ".join(branch.backups)),
            ("exports", " ".join(branch.exports)),
        ]
    )


def _show_diff(session: Session, data: BranchDiffReply) -> None:
    output = session.output
    _show_branch(session, data.branch)
    for volume in data.volumes:
        differing = volume.differing_bytes
        output.line(f"{volume.volume}: {size_text(differing) + ' differ' if differing else 'equal'}")
        for offset, length in volume.extents:
            output.line(f"  {offset} +{length}")
    output.table(
        ("position", "bytes", "time", "events"),
        [
            (frame.position, str(frame.bytes), session.local(frame.time), str(frame.events))
            for frame in data.frames
        ],
        empty="no frames",
    )
    more = data.branch.frames - len(data.frames)
    if more > 0:
        output.note(f"{more} more frames: --limit")
