"""`farshore drill`: try a recovery out on a clone, and look at what it showed."""

from __future__ import annotations

from typing import Annotated

import typer

from console.commands.backup import parse_scope
from console.figures import UNKNOWN, age_text, span_text
from console.luks.option import KeyFile, key_of
from console.mounts.checks import CHECK_TIMEOUT_S
from console.mounts.chosen_check import HookArgsOption, HookOption, UserOption
from console.mounts.drill import step_rows
from console.mounts.partition_choice import PartitionOption
from console.mounts.recorded_drill import Wanted, carry_out
from console.options import After, seconds
from console.session import Session, session_of
from protocol.commands.base import ROWS_MAX, check_name
from protocol.commands.drill import DrillInfo, DrillList
from protocol.errors import ExitCode, NotFound, UsageError

app = typer.Typer(
    help="Recoveries tried out on clones, and measured.", no_args_is_help=True, rich_markup_mode=None
)

GroupOption = Annotated[str | None, typer.Argument(metavar="G", help="One group only.")]


@app.command()
def run(
    ctx: typer.Context,
    scope: Annotated[str, typer.Argument(metavar="G|G/V", help="A group, or one volume of it.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="CUT", help="By default the newest at this site.")
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="CMD",
            help="Says by exit code 0 that all is well; FARSHORE_MOUNT and the like are in its environment.",
        ),
    ] = None,
    check_hook: HookOption = None,
    check_arg: HookArgsOption = None,
    as_user: UserOption = None,
    volume: Annotated[str | None, typer.Option(metavar="V", help="One volume only.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Nothing is mounted: the check reads FARSHORE_DEVICE.")
    ] = False,
    partition: PartitionOption = None,
    digest: Annotated[
        bool | None,
        typer.Option(
            "--digest/--no-digest", help="Read all content for a digest; by default if CUT is a backup."
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", callback=seconds, help="Seconds for the check.")
    ] = CHECK_TIMEOUT_S,
    key_file: KeyFile = None,
) -> None:
    """Recover a group on a temporary clone: replay and check its file systems, mount them, run the check;
    measure the time and the data's age, and record it. Nothing of the group is touched; needs root.

    Ends with 1 when the copy did not prove good."""
    session = session_of(ctx)
    group, named = parse_scope(scope)
    if volume is not None and named is not None:
        raise UsageError("a volume twice", next_step="write G/V, or G and --volume V")
    wanted = Wanted(
        group=group,
        volume=named if volume is None else check_name(volume, "volume"),
        at=at,
        check=check,
        hook=check_hook,
        args=tuple(check_arg or ()),
        user=as_user,
        raw=raw,
        partitions=tuple(partition or ()),
        digest=digest,
        timeout_s=timeout,
        key=key_of(ctx, key_file),
    )
    data = carry_out(session, wanted)
    session.output.result("drill.run", data, lambda: _show(session, data))
    if not data.ok:
        raise typer.Exit(int(ExitCode.FAILED))


@app.command("list")
def list_drills(
    ctx: typer.Context,
    group: GroupOption = None,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1, max=ROWS_MAX)] = 50,
    after: After = None,
) -> None:
    """Drills that were run at this site or at its peer, newest first. To see all, some at a time, begin with
    `--after ''`."""
    session = session_of(ctx)
    if after is None:
        data = session.call(query_drills(group, limit))
    else:
        data = session.listed(query_drills(group, ROWS_MAX), limit, after)
    session.output.result(
        "drill.list",
        data,
        lambda: session.output.table(
            ("drill", "group", "started", "result", "recovery", "data age", "cut", "site"),
            [
                (
                    each.drill,
                    each.group,
                    session.local(each.started),
                    "ok" if each.ok else "failed",
                    span_text(each.recovery_s),
                    span_text(each.data_age_s),
                    each.cut.text,
                    each.site,
                )
                for each in data.drills
            ],
            empty="no drills: `farshore drill run G`",
        ),
    )
    session.say_more(data)


@app.command()
def show(
    ctx: typer.Context,
    group: Annotated[str, typer.Argument(metavar="G", help="A group.")],
    drill_id: Annotated[
        str | None, typer.Argument(metavar="DRILL", help="As `drill list` names it; the newest by default.")
    ] = None,
) -> None:
    """One drill with its steps."""
    session = session_of(ctx)
    found = session.call(query_drills(group, 1 if drill_id is None else ROWS_MAX)).drills
    wanted = [each for each in found if drill_id in (None, each.drill)]
    if not wanted:
        raise NotFound(
            f"no drill {drill_id or ''} of {group} here".replace("  ", " "),
            subject=group,
            next_step=f"farshore drill list {group}",
        )
    session.output.result("drill.show", wanted[0], lambda: _show(session, wanted[0]))


def query_drills(group: str | None, limit: int) -> DrillList:
    """What asks for them."""
    return DrillList(group=None if group is None else check_name(group, "group"), limit=limit)


def _show(session: Session, data: DrillInfo) -> None:
    output = session.output
    verdict = "recovered" if data.ok else "did not prove good"
    output.line(f"{data.group} {verdict} at {data.site} in {span_text(data.recovery_s)}")
    proof = data.proof
    fields = [
        ("drill", data.drill),
        ("started", session.local(data.started)),
        ("cut", session.cut_line(data.cut)),
        ("data", age_text(data.data_age_s) if data.data_age_s is not None else UNKNOWN),
        ("volumes", " ".join(data.volumes)),
    ]
    if proof is not None:
        fields += [
            ("backup", proof.backup or proof.backup_id),
            ("by", proof.by),
            ("check", proof.hook or proof.command),
            ("run as", proof.user),
            ("exit", "" if proof.exit_code is None else str(proof.exit_code)),
            ("version", ", ".join(proof.tools)),
            *((f"digest of {each.volume}", each.digest) for each in proof.digests),
            ("digest", proof.digest),
        ]
    output.fields(fields)
    if data.steps:
        output.table(("volume", "step", "state", "took", "said"), step_rows(data.steps), empty="no steps")
    else:
        output.note(f"next: `farshore drill show {data.group} {data.drill} --site {data.site}` has its steps")
