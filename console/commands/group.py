"""`farshore group`: which groups there are, another name for one, and one that goes."""

from __future__ import annotations

from typing import Annotated

import typer

from console.confirming import confirmed
from console.empty_lists import nothing
from console.figures import UNKNOWN, size_text
from console.options import After, Limit
from console.session import Session, session_of
from protocol.commands.base import check_name
from protocol.commands.group import GroupDelete, GroupList, GroupRename, GroupShow, GroupSummary

app = typer.Typer(help="Volumes that share one write order.", no_args_is_help=True, rich_markup_mode=None)

GroupArgument = Annotated[str, typer.Argument(metavar="G", help="A group.")]
# A long journal is removed file by file.
MOVE_TIMEOUT_S = 600.0


@app.command("list")
def list_groups(
    ctx: typer.Context,
    limit: Limit = None,
    after: After = None,
) -> None:
    """Every group of this site that is open."""
    session = session_of(ctx)
    data = session.listed(GroupList(), limit, after)

    def show() -> None:
        session.output.table(
            ("group", "role", "state", "peer", "volumes", "backups", "journal", "id"),
            [_row(each) for each in data.groups],
            empty=nothing(session, data.groups, "no groups: `farshore volume create G/V --size 10G`"),
        )

    session.output.result("group.list", data, show)
    session.say_more(data)


@app.command()
def show(ctx: typer.Context, group: GroupArgument) -> None:
    """What a group holds here, and what keeps it from being deleted."""
    session = session_of(ctx)
    data = session.call(GroupShow(group=check_name(group, "group")))
    session.output.result("group.show", data, lambda: _show(session, data))


@app.command()
def rename(
    ctx: typer.Context,
    group: Annotated[str, typer.Argument(metavar="OLD")],
    new: Annotated[str, typer.Argument(metavar="NEW")],
) -> None:
    """Call a group by another name at this site; do the same at the other before they are paired again."""
    session = session_of(ctx)
    command = GroupRename(group=check_name(group, "group"), new=check_name(new, "group"))
    data = session.call(command, MOVE_TIMEOUT_S)
    session.output.result("group.rename", data, lambda: _show(session, data))


@app.command()
def delete(
    ctx: typer.Context,
    group: GroupArgument,
    confirm: Annotated[str, typer.Option(metavar="G", help="The group's name once more.")] = "",
) -> None:
    """Remove a group from this site, with its whole history."""
    session = session_of(ctx)
    check_name(group, "group")

    def look() -> None:
        _show(session, session.call(GroupShow(group=group)))

    confirm = confirmed(session, confirm, group, "delete it and its history here for good", show=look)
    data = session.call(GroupDelete(group=group, confirm=confirm), MOVE_TIMEOUT_S)
    session.output.result("group.delete", data, lambda: session.output.line(f"group {group} deleted"))


def _row(each: GroupSummary) -> tuple[str, ...]:
    figures = (str(each.volumes), str(each.backups), size_text(each.journal_bytes))
    return (each.group, each.role, each.state, each.peer or UNKNOWN, *figures, each.group_id)


def _show(session: Session, data: GroupSummary) -> None:
    session.output.fields(
        [
            ("group", data.group),
            ("id", data.group_id),
            ("role", data.role),
            ("state", data.state),
            ("peer", data.peer or UNKNOWN),
            ("made", session.local(data.created)),
            ("volumes", str(data.volumes)),
            ("clones", " ".join(data.clones) or UNKNOWN),
            ("backups", str(data.backups)),
            ("locked until", session.local(data.locked_until) if data.locked_until else UNKNOWN),
            ("journal", size_text(data.journal_bytes)),
            ("hosts", ", ".join(data.hosts) or UNKNOWN),
        ]
    )
