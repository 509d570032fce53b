"""`farshore bisect`: find the first bad moment of a group, with a check of one's own on clones."""

from __future__ import annotations

from typing import Annotated

import typer

from console.commands.backup import parse_scope
from console.luks.option import KeyFile, key_of
from console.mounts.bisecting import Bisection, Moment, moment
from console.mounts.checks import CHECK_TIMEOUT_S
from console.mounts.chosen_check import HookArgsOption, HookOption, UserOption, choose_check
from console.mounts.clones import until_told
from console.mounts.mounting import require_root
from console.mounts.partition_choice import PartitionOption, parse_partitions
from console.mounts.probing import Prober
from console.options import seconds
from console.session import Session, session_of
from protocol.commands.base import Reply
from protocol.commands.cut import CutResolve
from protocol.commands.journal import FrameInfo
from protocol.errors import Mismatch, UsageError


def bisect(
    ctx: typer.Context,
    scope: Annotated[str, typer.Argument(metavar="G|G/V", help="A group, or one volume of it.")],
    good: Annotated[str, typer.Option(metavar="CUT", help="A moment when all was well.")],
    bad: Annotated[str, typer.Option(metavar="CUT", help="A later one when it was not.")],
    check: Annotated[
        str | None,
        typer.Option(
            metavar="CMD",
            help="0 says good, 1 to 124 bad; FARSHORE_MOUNT and the like are in its environment.",
        ),
    ] = None,
    check_hook: HookOption = None,
    check_arg: HookArgsOption = None,
    as_user: UserOption = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Nothing is mounted: FARSHORE_DEVICE is the volume as a file.")
    ] = False,
    partition: PartitionOption = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", callback=seconds, help="Seconds for each check.")
    ] = CHECK_TIMEOUT_S,
    key_file: KeyFile = None,
) -> None:
    """Find the first bad moment: the check runs on temporary clones of fewer and fewer cuts between a good
    and a bad one, down to a single frame. Needs root, except with --raw."""
    session = session_of(ctx)
    group, volume = parse_scope(scope)
    if check is None and check_hook is None:
        raise UsageError(
            "what tells good from bad?", subject=scope, next_step="add --check CMD or --check-hook NAME"
        )
    args, numbers = tuple(check_arg or ()), tuple(partition or ())
    chosen = choose_check(check=check, hook=check_hook, args=args, user=as_user, raw=raw, partitions=numbers)
    if not chosen.raw:
        require_root()
    first, last = (
        moment(session.call(CutResolve(group=group, cut=session.cut(text)))) for text in (good, bad)
    )
    if first.cut.position >= last.cut.position:
        raise UsageError(
            f"{first.cut} is not before {last.cut}", subject=scope, next_step="--good CUT --bad CUT"
        )
    partitions = parse_partitions(numbers)
    key = key_of(ctx, key_file)
    prober = Prober(
        session, group, volume, chosen, args=args, partitions=partitions, timeout_s=timeout, key=key
    )
    with until_told():
        for end, expected in ((first, True), (last, False)):
            if prober.probe(end.cut, end.time) is not expected:
                raise _wrong_end(scope, end, expected, prober.said)
        search = Bisection(session, group, first, last, prober.probe)
        frame = search.run()
    data = _result(session, scope, group, volume, search, frame, prober)
    session.output.result("bisect", data, lambda: _show(session, data))


class BisectEnd(Reply, frozen=True, kw_only=True):
    """A cut as `TIMELINE:POSITION`, and its time."""

    cut: str
    time: str | None


class BisectReply(Reply, frozen=True, kw_only=True):
    """The last `good` and the first `bad` moment. `frame`: the one that lies between both, or null when
    several do that are no longer kept apart; `restore` is a command line."""

    group: str
    volume: str | None
    good: BisectEnd
    bad: BisectEnd
    frame: FrameInfo | None
    probes: int
    restore: str


def _wrong_end(scope: str, end: Moment, expected: bool, said: str) -> Mismatch:
    option, word = ("--good", "bad") if expected else ("--bad", "good")
    return Mismatch(
        f"the check calls {option} {end.cut} {word}: {said[-500:]}".rstrip(": "),
        subject=scope,
        position=str(end.cut),
        next_step=f"name another {option}, or mend the check",
    )


def _result(
    session: Session,
    scope: str,
    group: str,
    volume: str | None,
    search: Bisection,
    frame: FrameInfo | None,
    prober: Prober,
) -> BisectReply:
    last = search.good.cut
    what = f"group {group}" if volume is None else f"volume {scope}"
    return BisectReply(
        group=group,
        volume=volume,
        good=BisectEnd(cut=str(last), time=search.good.time),
        bad=BisectEnd(cut=str(search.bad.cut), time=frame.time if frame else search.bad.time),
        frame=frame,
        probes=prober.probes,
        restore=session.output.pasted(f"farshore restore {what} --at {last} --confirm {scope}"),
    )


def _show(session: Session, data: BisectReply) -> None:
    frame = data.frame
    kinds = sorted(frame.kinds.items()) if frame else []
    session.output.line(f"{data.bad.cut} is the first bad moment, {session.local(data.bad.time)}")
    session.output.fields(
        [
            ("last good", f"{data.good.cut} {session.local(data.good.time)}"),
            ("frame", f"{frame.position} {' '.join(f'{k}:{n}' for k, n in kinds)}" if frame else ""),
            ("checks", str(data.probes)),
            ("restore", data.restore),
        ]
    )
    if frame is None:
        session.output.note("frames between both are no longer kept one by one: it is one of those")
