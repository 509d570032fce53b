"""`farshore files versions`: in which backups a file in a volume differs."""

from __future__ import annotations

from typing import Annotated

import typer

from console.commands.file import Device, KernelMount, NoReplay, Partition, time_of, ways_of
from console.figures import UNKNOWN, local_text
from console.files.digests import content_digest
from console.files.opening import Ways, open_files
from console.files.target import Place, parse_place
from console.files.versions import Version, Versions
from console.files.walk import Finder, path_text
from console.luks.option import KeyFile, key_of
from console.session import Session, fixed_cut, session_of
from protocol.commands.backup import BackupList
from protocol.commands.base import Reply
from protocol.commands.cut import CutInfo
from protocol.commands.site import SiteStatus
from protocol.commands.volume import VolumeShow
from protocol.errors import ExitCode, FarshoreError, NotFound

app = typer.Typer(help="Files in volumes.", no_args_is_help=True, rich_markup_mode=None)


class NamedCutInfo(Reply, frozen=True, kw_only=True):
    """A cut, and the backup's name or what else it is."""

    name: str
    cut: CutInfo


class VersionInfo(Reply, frozen=True, kw_only=True):
    """Cuts in which a file is the same; all else is null where there is none."""

    kind: str | None
    size_bytes: int | None
    mtime: str | None
    number: int | None
    digest: str | None
    cuts: list[NamedCutInfo]


class FailedCut(Reply, frozen=True, kw_only=True):
    """A cut that could not be looked at."""

    cut: str
    why: str


class VersionsReply(Reply, frozen=True, kw_only=True):
    """Oldest first."""

    volume: str
    path: str
    versions: list[VersionInfo]
    failed: list[FailedCut]


class VersionsStep(Reply, frozen=True, kw_only=True):
    """Progress of `files versions`: how many cuts of all were looked at."""

    done: int
    total: int


@app.command()
def versions(
    ctx: typer.Context,
    place: Annotated[str, typer.Argument(metavar="G/V:/PATH", help="A path in a volume.")],
    partition: Partition = 0,
    no_replay: NoReplay = False,
    kernel_mount: KernelMount = False,
    device: Device = "",
    key_file: KeyFile = None,
) -> None:
    """In which backups a file differs: a line for each version of it, oldest first. The oldest moment from
    which on every second is kept, and now, are looked at too."""
    session = session_of(ctx)
    where = parse_place(place, with_cut=False)
    found, failed = Versions(), []
    ways = ways_of(partition, no_replay, kernel_mount, device, key_of(ctx, key_file))
    cuts = named_cuts(session, where)
    with session.output.activity(f"looking at {len(cuts)} cuts of {where.name}") as activity:
        for number, (name, cut) in enumerate(cuts):
            step = VersionsStep(done=number, total=len(cuts))
            activity.update(step, name, done=step.done, total=step.total)
            try:
                _look(session, where, name, cut, ways, found)
            except FarshoreError as error:
                failed.append(FailedCut(cut=name, why=error.message))
    rows = [_version_info(version) for version in found.found]
    data = VersionsReply(volume=where.name, path=path_text(where.path), versions=rows, failed=failed)

    def show() -> None:
        table = [
            (
                row.kind or "absent",
                UNKNOWN if row.size_bytes is None else str(row.size_bytes),
                local_text(row.mtime, session.zone),
                " ".join(each.name for each in row.cuts),
            )
            for row in rows
        ]
        session.output.table(("kind", "size", "changed", "in"), table, empty="no cut can be read here")
        for each in failed:
            session.output.note(f"missing: {each.cut}: {each.why}")

    session.output.result("files.versions", data, show)
    if failed:
        raise typer.Exit(int(ExitCode.PARTIAL))


def named_cuts(session: Session, where: Place) -> list[tuple[str, CutInfo]]:
    """Names and cuts, oldest first: positions grow along a volume's history."""
    shown = session.call(VolumeShow(group=where.group, volume=where.volume, history=True))
    here = session.call(SiteStatus()).site
    found = [("oldest", shown.history.oldest)] if shown.history else []
    found.append(("now", shown.head))
    for backup in session.call(BackupList(group=where.group, volume=where.volume)).backups:
        if backup.state.get(here) in ("available", "verified", "damaged"):
            found.append((backup.label or backup.id, backup.cut))
    return sorted(found, key=lambda each: each[1].position)


def _look(session: Session, where: Place, name: str, cut: CutInfo, ways: Ways, versions: Versions) -> None:
    with open_files(session, where.group, where.volume, fixed_cut(cut), ways) as files:
        try:
            item = Finder(files.source).find(where.path)
        except NotFound:
            item = None
        versions.add(name, cut, item, lambda: content_digest(files.source, item) if item else b"")


def _version_info(version: Version) -> VersionInfo:
    entry = version.entry
    return VersionInfo(
        kind=entry.what if entry else None,
        size_bytes=entry.size_bytes if entry else None,
        mtime=time_of(entry) if entry else None,
        number=entry.number if entry else None,
        digest=version.digest.hex() or None,
        cuts=[NamedCutInfo(name=name, cut=cut) for name, cut in version.cuts],
    )
