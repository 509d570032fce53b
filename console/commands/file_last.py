"""`farshore files last`: the newest cut that has a file.

Looked at are now, the backups, and moments that lie further and further back in the time of which every
second is kept, until one has it. Between that one and the next one, which lacks it, the search goes on by
halves, down to a frame. So a file that was there for as long as it has been gone is found without a backup of
it, by a number of looks that grows with the logarithm of that time, and with the number of backups.

No look needs root: logs of file systems are not played back, so what the host wrote in its last half minute
before a cut may lack there. A cut that cannot be read, such as one in the middle of `mkfs`, lacks the file.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from console.commands.file import Device, Partition, time_of
from console.commands.file_versions import FailedCut, named_cuts
from console.figures import UNKNOWN, local_text, size_text, utc_ns
from console.files.opening import Ways, open_files
from console.files.target import Place, parse_place
from console.files.walk import Finder, Item, path_text
from console.luks.option import KeyFile, key_of
from console.mounts.bisecting import Bisection, moment
from console.session import Session, fixed_cut, session_of
from protocol.commands.base import Reply
from protocol.commands.cut import CutInfo, CutResolve
from protocol.cut_text import NS_PER_S, CutPosition, CutTime
from protocol.errors import FarshoreError, NotAllowed, NotFound
from protocol.positions import Cut

Look = Callable[[str, CutPosition], bool]
# The first moment before now that is looked at; each further one is twice as far away.
FIRST_S = 60
FAILED_SHOWN_MAX = 20


class LastReply(Reply, frozen=True, kw_only=True):
    """The newest cut that has a file, and the one that follows it and lacks it: null where it is there now.
    `exact`: whether nothing that can be read lies between the two. `looks`: at how many cuts."""

    volume: str
    path: str
    cut: CutInfo
    name: str
    without: CutInfo | None
    exact: bool
    kind: str
    size_bytes: int
    mtime: str | None
    looks: int
    failed: list[FailedCut]
    restore: str


class LastStep(Reply, frozen=True, kw_only=True):
    """Progress of `files last`: how many cuts were looked at."""

    done: int


@dataclass(slots=True)
class _Looker:
    """Looks at a path at one cut after another; keeps what it saw last."""

    session: Session
    where: Place
    ways: Ways
    looks: int = 0
    read: int = 0
    item: Item | None = None

    def at(self, cut: CutPosition) -> bool:
        """Whether the path is there. Raises FarshoreError where the cut cannot be read."""
        self.looks += 1
        with open_files(self.session, self.where.group, self.where.volume, cut, self.ways) as files:
            self.read += 1
            try:
                item = Finder(files.source).find(self.where.path)
            except NotFound:
                return False
        self.item = item
        return True


def last(
    ctx: typer.Context,
    place: Annotated[str, typer.Argument(metavar="G/V:/PATH", help="A path in a volume.")],
    partition: Partition = 0,
    device: Device = "",
    key_file: KeyFile = None,
) -> None:
    """Find the newest cut that has a file, without root: of a deleted one the moment before that."""
    session = session_of(ctx)
    where = parse_place(place, with_cut=False)
    ways = Ways(partition=partition, replay=False, device=device, key=key_of(ctx, key_file))
    looker = _Looker(session, where, ways)
    failed: list[FailedCut] = []
    with session.output.activity(f"looking for {path_text(where.path)} in {where.name}") as activity:

        def there(name: str, cut: CutPosition) -> bool:
            activity.update(LastStep(done=looker.looks), name)
            try:
                return looker.at(cut)
            except FarshoreError as error:
                if isinstance(error, NotAllowed) and not looker.read:
                    # A wrong key is not the cut's fault, and the others would say the same.
                    raise
                failed.append(FailedCut(cut=name, why=error.message))
                return False

        name, cut, newer = _newest_known(session, where, there)
        exact, without = newer is None, newer
        if newer is not None and _all_kept(session, where, cut):
            search = Bisection(
                session, where.group, moment(cut), moment(newer), lambda at, _: there(str(at), _position(at))
            )
            exact = search.run() is not None
            if search.good.cut != fixed_cut(cut).cut:
                cut, name = _resolved(session, where, search.good.cut), ""
            without = _resolved(session, where, search.bad.cut)
        looker.at(fixed_cut(cut))
    data = _reply(session, where, looker, cut, name, without, exact=exact, failed=failed)
    session.output.result("files.last", data, lambda: _show(session, data))


def _newest_known(session: Session, where: Place, there: Look) -> tuple[str, CutInfo, CutInfo | None]:
    """The first cut that has it, on the way back, by name; and the one looked at before. NotFound."""
    newer: CutInfo | None = None
    for name, cut in reversed(_candidates(session, where)):
        if newer is not None and cut.position >= newer.position:
            continue
        if there(name, fixed_cut(cut)):
            return name, cut, newer
        newer = cut
    raise NotFound(
        f"no cut of {where.name} that was looked at has {path_text(where.path)}",
        subject=where.name,
        next_step=f"farshore files versions {where.name}:{path_text(where.path)}",
    )


def _candidates(session: Session, where: Place) -> list[tuple[str, CutInfo]]:
    """By position, oldest first."""
    cuts = named_cuts(session, where)
    known = dict(cuts)
    oldest, now = known.get("oldest"), known["now"]
    if oldest is not None and oldest.time and now.time:
        back_s = FIRST_S
        while utc_ns(now.time) - back_s * NS_PER_S > utc_ns(oldest.time):
            at = CutTime(utc_ns=utc_ns(now.time) - back_s * NS_PER_S)
            cuts.append(("", _plain(session.call(CutResolve(group=where.group, cut=at)))))
            back_s *= 2
    return sorted(((name or cut.text, cut) for name, cut in cuts), key=lambda each: each[1].position)


def _all_kept(session: Session, where: Place, cut: CutInfo) -> bool:
    """Whether every frame from there on can be read: backups may be older than what is kept whole."""
    oldest = dict(named_cuts(session, where)).get("oldest")
    return oldest is not None and cut.position >= oldest.position


def _position(cut: Cut) -> CutPosition:
    return CutPosition(timeline=cut.timeline, position=cut.position)


def _resolved(session: Session, where: Place, cut: Cut) -> CutInfo:
    return _plain(session.call(CutResolve(group=where.group, cut=_position(cut))))


def _plain(cut: CutInfo) -> CutInfo:
    """Without what a reply of another type has beside it."""
    return CutInfo(**{name: getattr(cut, name) for name in CutInfo.__struct_fields__})


def _reply(
    session: Session,
    where: Place,
    looker: _Looker,
    cut: CutInfo,
    name: str,
    without: CutInfo | None,
    *,
    exact: bool,
    failed: list[FailedCut],
) -> LastReply:
    if looker.item is None:
        raise NotFound(f"{path_text(where.path)} is not at {cut.text} any more", subject=where.name)
    entry, path = looker.item.entry, path_text(where.path)
    return LastReply(
        volume=where.name,
        path=path,
        cut=cut,
        name="" if name == cut.text else name,
        without=without,
        exact=exact,
        kind=entry.what,
        size_bytes=entry.size_bytes,
        mtime=time_of(entry),
        looks=looker.looks,
        failed=failed[:FAILED_SHOWN_MAX],
        restore=session.output.pasted(
            f"farshore restore files {where.name} --at {cut.text} {shlex.quote(path)} --to ."
        ),
    )


def _show(session: Session, data: LastReply) -> None:
    output = session.output
    output.line(f"{data.volume}:{data.path} is at {session.cut_line(data.cut)}")
    output.fields(
        [
            ("backup", data.name if data.name not in ("now", "oldest") else ""),
            ("gone at", session.cut_line(data.without) if data.without else "it is there now"),
            ("size", size_text(data.size_bytes) if data.kind == "f" else data.kind),
            ("changed", local_text(data.mtime, session.zone) if data.mtime else UNKNOWN),
            ("looked at", f"{data.looks} cuts"),
            ("next", data.restore),
        ]
    )
    if not data.exact:
        output.note("between the two nothing can be read frame by frame: it may have been there longer")
