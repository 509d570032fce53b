"""`farshore clone`: writable copies of a volume or a group at any cut, thin, at one site only."""

from __future__ import annotations

from typing import Annotated

import typer

from console.confirming import confirmed
from console.figures import UNKNOWN, size_text
from console.options import After, Limit
from console.session import Session, session_of
from protocol.commands.base import check_name, parse_volume_name
from protocol.commands.clone import CloneCreate, CloneDelete, CloneInfo, CloneList
from protocol.errors import UsageError

app = typer.Typer(
    help="Writable clones at a cut; nothing is copied.", no_args_is_help=True, rich_markup_mode=None
)

CloneArgument = Annotated[str, typer.Argument(metavar="NAME", help="The clone, as `clone list` names it.")]


@app.command()
def create(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="G[/V]@CUT", help="A group or volume, and when.")],
    clone: Annotated[str, typer.Argument(metavar="NAME", help="Its volumes are then NAME/V.")],
    temporary: Annotated[
        bool, typer.Option("--temporary", help="Gone when the daemon starts again.")
    ] = False,
) -> None:
    """Make a writable clone at a cut: hosts use NAME/V like any volume. It is never shipped, and what is
    written to it changes nothing else."""
    session = session_of(ctx)
    path, at, cut = source.partition("@")
    if not at:
        raise UsageError(f"{source!r} names no cut", subject=source, next_step=f"write {source}@latest")
    group, volume = parse_volume_name(path) if "/" in path else (check_name(path, "group"), None)
    data = session.call(
        CloneCreate(
            group=group,
            volume=volume,
            cut=session.cut(cut),
            clone=check_name(clone, "clone"),
            temporary=temporary,
        )
    )

    def show() -> None:
        _show(session, data)
        session.output.note(f"hosts: `farshore volume uri {data.exports[0]}`")

    session.output.result("clone.create", data, show)


@app.command("list")
def list_clones(
    ctx: typer.Context,
    group: Annotated[str | None, typer.Argument(metavar="G", help="One group only.")] = None,
    limit: Limit = None,
    after: After = None,
) -> None:
    """Every clone that this site holds."""
    session = session_of(ctx)
    data = session.listed(
        CloneList(group=None if group is None else check_name(group, "group")), limit, after
    )
    session.output.result(
        "clone.list",
        data,
        lambda: session.output.table(
            ("clone", "of", "at", "made", "volumes", "written", "hosts", "purpose"),
            [_row(session, clone) for clone in data.clones],
            empty="no clones: `farshore clone create G@CUT NAME`",
        ),
    )
    session.say_more(data)


@app.command()
def delete(
    ctx: typer.Context,
    clone: CloneArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Although hosts are connected: they get errors.")
    ] = False,
    confirm: Annotated[str, typer.Option(metavar="NAME", help="The clone's name once more.")] = "",
) -> None:
    """Delete a clone and all that was written to it."""
    session = session_of(ctx)
    check_name(clone, "clone")

    def look() -> None:
        for each in session.call(CloneList()).clones:
            if each.clone == clone:
                _show(session, each)

    confirm = confirmed(session, confirm, clone, "delete that clone for good", show=look)
    data = session.call(CloneDelete(clone=clone, force=force, confirm=confirm))
    session.output.result("clone.delete", data, lambda: session.output.line(f"clone {clone} deleted"))


def _row(session: Session, clone: CloneInfo) -> tuple[str, ...]:
    return (
        clone.clone,
        clone.group,
        clone.cut.text,
        session.local(clone.created),
        " ".join(clone.volumes),
        size_text(clone.bytes),
        str(clone.hosts),
        clone.purpose or UNKNOWN,
    )


def _show(session: Session, clone: CloneInfo) -> None:
    session.output.fields(
        [
            ("clone", clone.clone),
            ("of", clone.group),
            ("at", session.cut_line(clone.cut)),
            ("exports", " ".join(clone.exports)),
        ]
    )
