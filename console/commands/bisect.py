"""`farshore bisect`: find the first bad moment of a group, with a check of one's own on clones."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from console.commands.backup import parse_scope
from console.figures import local_text
from console.mounts.bisecting import Bisection, Moment, moment
from console.mounts.checks import CHECK_TIMEOUT_S, Verdict, run_check, volume_variables
from console.mounts.clones import attached, cloned, until_told
from console.mounts.filesystems import file_system
from console.mounts.mounting import require_root
from console.options import seconds
from console.session import Session, session_of
from protocol.commands.base import Reply
from protocol.commands.cut import CutResolve
from protocol.commands.journal import FrameInfo
from protocol.cut_text import CutPosition
from protocol.errors import FarshoreError, Mismatch, UsageError
from protocol.positions import Cut


def bisect(
    ctx: typer.Context,
    scope: Annotated[str, typer.Argument(metavar="G|G/V", help="A group, or one volume of it.")],
    good: Annotated[str, typer.Option(metavar="CUT", help="A moment when all was well.")],
    bad: Annotated[str, typer.Option(metavar="CUT", help="A later one when it was not.")],
    check: Annotated[
        str,
        typer.Option(
            metavar="CMD",
            help="0 says good, 1 to 124 bad; FARSHORE_MOUNT and the like are in its environment.",
        ),
    ],
    raw: Annotated[
        bool, typer.Option("--raw", help="Nothing is mounted: FARSHORE_DEVICE is the volume as a file.")
    ] = False,
    number: Annotated[
        int | None, typer.Option("--partition", metavar="N", min=1, help="A partition of the volume.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", callback=seconds, help="Seconds for each check.")
    ] = CHECK_TIMEOUT_S,
) -> None:
    """Find the first bad moment: the check runs on temporary clones of fewer and fewer cuts between a good
    and a bad one, down to a single frame. Needs root, except with --raw."""
    session = session_of(ctx)
    group, volume = parse_scope(scope)
    if raw and number is not None:
        raise UsageError("--raw and --partition together", next_step="with --raw the check finds its way")
    if not raw:
        require_root()
    first, last = (
        moment(session.call(CutResolve(group=group, cut=session.cut(text)))) for text in (good, bad)
    )
    if first.cut.position >= last.cut.position:
        raise UsageError(
            f"{first.cut} is not before {last.cut}", subject=scope, next_step="--good CUT --bad CUT"
        )
    prober = Prober(session, group, volume, check, raw=raw, number=number, timeout_s=timeout)
    with until_told():
        for end, expected in ((first, True), (last, False)):
            if prober.probe(end.cut, end.time) is not expected:
                raise _wrong_end(scope, end, expected, prober.said)
        search = Bisection(session, group, first, last, prober.probe)
        frame = search.run()
    data = _result(scope, group, volume, search, frame, prober)
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


class ProbeStep(Reply, frozen=True, kw_only=True):
    """Progress of `bisect`: a cut that was tried, as `TIMELINE:POSITION`. `said`: the end of what the check
    printed."""

    cut: str
    time: str | None
    good: bool
    said: str


class Prober:
    """Tries the check at one cut after another. `said` is the end of what the last one said."""

    def __init__(
        self,
        session: Session,
        group: str,
        volume: str | None,
        check: str,
        *,
        raw: bool,
        number: int | None,
        timeout_s: float,
    ) -> None:
        self._session = session
        self._group = group
        self._volume = volume
        self._check = check
        self._raw = raw
        self._number = number
        self._timeout_s = timeout_s
        self.said = ""
        self.probes = 0

    def probe(self, cut: Cut, time: str | None) -> bool:
        """Whether the check calls this cut good. A file system that cannot be mounted is bad. Raises
        FarshoreError when the check cannot be carried out."""
        verdict = self._verdict(cut, time)
        self.probes += 1
        self.said = verdict.said
        word = "good" if verdict.ok else "bad"
        output = self._session.output
        output.progress(ProbeStep(cut=str(cut), time=time, good=verdict.ok, said=verdict.said[-500:]))
        output.note(f"{cut} {local_text(time, self._session.zone)} {word}")
        return verdict.ok

    def _verdict(self, cut: Cut, time: str | None) -> Verdict:
        named = CutPosition(timeline=cut.timeline, position=cut.position)
        with ExitStack() as stack:
            clone = stack.enter_context(cloned(self._session, self._group, self._volume, named, "bisect"))
            staged: dict[str, tuple[Path | None, str]] = {}
            for volume in clone.volumes:
                made = stack.enter_context(attached(self._session, clone.clone, volume))
                if self._raw:
                    staged[volume] = (None, str(made.file))
                    continue
                try:
                    device = made.make_device(read_only=False, number=self._number)
                    made.make_point()
                    made.mount(file_system(Path(device)), writable=True, replay=True)
                except FarshoreError as error:
                    if self._volume is not None or len(clone.volumes) == 1:
                        return Verdict(ok=False, said=error.message)
                    # Swap and the like among others: the check knows which of them it needs.
                    staged[volume] = (None, made.device)
                    continue
                staged[volume] = (made.point, device)
            variables = {
                **volume_variables(staged),
                "FARSHORE_GROUP": self._group,
                "FARSHORE_CUT": str(cut),
                "FARSHORE_CUT_TIME": time or "",
                "FARSHORE_CLONE": clone.clone,
            }
            return run_check(self._check, variables, self._timeout_s)


def _wrong_end(scope: str, end: Moment, expected: bool, said: str) -> Mismatch:
    option, word = ("--good", "bad") if expected else ("--bad", "good")
    return Mismatch(
        f"the check calls {option} {end.cut} {word}: {said[-500:]}".rstrip(": "),
        subject=scope,
        position=str(end.cut),
        next_step=f"name another {option}, or mend the check",
    )


def _result(
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
        restore=f"farshore restore {what} --at {last} --confirm {scope}",
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
