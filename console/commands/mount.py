"""`farshore mount` and `umount`: a volume, a past moment of it, or a clone as a file system of this machine.

Only the kernel's own file systems need this. What it costs and endangers: docs/operations.md.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from console.figures import UNKNOWN
from console.host_configs import Export, export_of, uri
from console.luks.option import KeyFile, key_of
from console.luks.secret import LuksKey
from console.mounts.clones import create_clone, cut_of, take_down, undone_on_error, until_told
from console.mounts.filesystems import FileSystem
from console.mounts.mounting import Mount, at, look, mounts, real, require_root
from console.mounts.unlocked import open_attached
from console.session import Session, fixed_cut, session_of
from protocol.commands.base import Reply, parse_volume_name
from protocol.commands.clone import CloneList
from protocol.commands.cut import CutInfo
from protocol.commands.volume import VolumeShow, VolumeUri
from protocol.cut_text import CutLatest, NamedCut
from protocol.errors import Busy, NotFound, Refused, UsageError


class MountReply(Reply, frozen=True, kw_only=True):
    """What was mounted. `cut`: null for what is live; `replayed`: the file system's log was."""

    export: str
    point: str
    device: str
    filesystem: str
    writable: bool
    replayed: bool
    cut: CutInfo | None
    clone: str | None
    warnings: list[str]


class UmountReply(Reply, frozen=True, kw_only=True):
    """What was mounted there."""

    export: str
    point: str
    clone: str | None


class MountInfo(Reply, frozen=True, kw_only=True):
    """A mount of this machine; one that is not `mounted` is coming up, or was left over. `failed`: its
    connection to the site is gone, and every read and write of it an error."""

    point: str
    export: str
    site: str
    clone: str | None
    device: str | None
    mounted: bool
    failed: bool = False


class MountListReply(Reply, frozen=True, kw_only=True):
    """Of this machine."""

    mounts: list[MountInfo]


def mount(
    ctx: typer.Context,
    export: Annotated[
        str | None, typer.Argument(metavar="G/V[@CUT]", help="A volume, or what it was, or CLONE/V.")
    ] = None,
    directory: Annotated[Path | None, typer.Argument(metavar="DIR", help="An empty directory.")] = None,
    writable: Annotated[
        bool,
        typer.Option("--writable", help="With a cut: a temporary clone. Without: the live volume itself."),
    ] = False,
    number: Annotated[
        int | None, typer.Option("--partition", metavar="N", min=1, help="A partition of the volume.")
    ] = None,
    no_replay: Annotated[
        bool, typer.Option("--no-replay", help="Without the file system's log; no clone is made.")
    ] = False,
    key_file: KeyFile = None,
    as_list: Annotated[bool, typer.Option("--list", help="Show what this machine has mounted.")] = False,
) -> None:
    """Mount a file system of a volume on this machine; needs root. `farshore umount DIR` undoes all of it.

    Read-only, at the newest cut if none is named. Where the file system's log must be replayed to see what
    was written last, that is done on a temporary clone."""
    session = session_of(ctx)
    if as_list:
        _list(session)
        return
    if export is None or directory is None:
        raise UsageError(
            "what, and where?", next_step="`farshore mount G/V@CUT DIR`, or `farshore mount --list`"
        )
    require_root()
    point = _mount_point(directory)
    key = key_of(ctx, key_file)
    mounting = Mounting(
        session, export, point, writable=writable, number=number, no_replay=no_replay, key=key
    )
    data = mounting.run()

    def show() -> None:
        how = "writable" if writable else "read-only"
        session.output.line(f"{data.export} on {point}, {data.filesystem}, {how}")
        session.output.fields([("cut", session.cut_line(data.cut)), ("clone", data.clone or "")])
        for warning in data.warnings:
            session.output.note(f"warning: {warning}")
        session.output.note(f"undo: farshore umount {quote(str(point))}")

    session.output.result("mount", data, show)


def umount(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is mounted.")],
) -> None:
    """Undo a mount: file system, loop device, nbdfuse and temporary clone. Repeat it after any error."""
    session = session_of(ctx)
    require_root()
    there = at(directory)
    data = UmountReply(export=there.export, point=str(there.point), clone=there.clone or None)
    take_down(session, there)
    session.output.result("umount", data, lambda: session.output.line(f"{data.point} unmounted"))


class Mounting:
    """One mount, from the words to the file system; what fails is undone."""

    def __init__(
        self,
        session: Session,
        export: str,
        point: Path,
        *,
        writable: bool,
        number: int | None,
        no_replay: bool,
        key: LuksKey,
    ) -> None:
        self._session = session
        self._export = export
        self._point = point
        self._writable = writable
        self._number = number
        self._no_replay = no_replay
        self._key = key
        self._warnings: list[str] = []

    def run(self) -> MountReply:
        """Raises FarshoreError."""
        name, at_sign, text = self._export.partition("@")
        group, volume = parse_volume_name(name)
        with until_told(), undone_on_error(self._session, self._point, self._export) as made:
            if at_sign:
                found, cut = self._past(made, group, volume, self._session.cut(text))
            elif self._is_clone(group):
                found, cut = self._live(made, group, volume), None
            elif self._writable:
                self._require_no_hosts(group, volume)
                found, cut = self._live(made, group, volume), None
            else:
                found, cut = self._past(made, group, volume, CutLatest())
            replayed = found.replay and not (self._no_replay and not self._writable)
            made.mount(found, writable=self._writable, replay=not self._no_replay)
            return MountReply(
                export=self._export,
                point=str(self._point),
                device=made.device,
                filesystem=found.kind,
                writable=self._writable,
                replayed=replayed,
                cut=cut,
                clone=made.clone or None,
                warnings=self._warnings,
            )

    def _past(self, made: Mount, group: str, volume: str, cut: NamedCut) -> tuple[FileSystem, CutInfo | None]:
        """At a cut: from its export where that shows all there is, else from a clone."""
        where = self._session.call(VolumeUri(group=group, volume=volume, cut=cut))
        if not self._writable:
            number = self._attach(made, export_of(where), read_only=True)
            found = look(made, number)
            if not found.replay or self._no_replay:
                if found.replay:
                    self._warnings.append(
                        f"without the log of {found.kind}: what was written last is missing"
                    )
                made.make_device(read_only=True, number=number)
                return found, where.cut
            made.detach()
        name = f"mount-{secrets.token_hex(4)}"
        create_clone(self._session, made, group, volume, fixed_cut(cut_of(where)), name)
        return self._live(made, name, volume), where.cut

    def _live(self, made: Mount, group: str, volume: str) -> FileSystem:
        """A volume or a clone's volume as it is now. The device may be written to even for a read-only
        mount: else the kernel could not replay the log."""
        where = self._session.call(VolumeUri(group=group, volume=volume))
        number = self._attach(made, export_of(where), read_only=False)
        found = look(made, number)
        made.make_device(read_only=False, number=number)
        return found

    def _attach(self, made: Mount, export: Export, *, read_only: bool) -> int | None:
        """Returns the number of the partition that is wanted in what is attached."""
        warning = made.attach(uri(export), read_only=read_only)
        if warning and self._writable and warning not in self._warnings:
            self._warnings.append(warning)
        return open_attached(made, export, self._number, self._key, read_only=read_only)

    def _is_clone(self, group: str) -> bool:
        return any(clone.clone == group for clone in self._session.call(CloneList()).clones)

    def _require_no_hosts(self, group: str, volume: str) -> None:
        """Two kernels that mount one file system destroy it."""
        hosts = self._session.call(VolumeShow(group=group, volume=volume)).connections
        if hosts:
            raise Busy(
                f"{group}/{volume} has {len(hosts)} hosts connected; mounting it twice destroys it",
                subject=f"{group}/{volume}",
                next_step=f"`farshore mount {group}/{volume}@latest DIR --writable` mounts a clone",
            )


def _mount_point(directory: Path) -> Path:
    point = real(directory)
    if any(each.point == point for each in mounts()):
        return point  # `record` says what is there; looking at a dead nbdfuse's mount would fail
    if not point.is_dir() or point.is_symlink():
        raise NotFound(f"{point} is no directory", subject=str(point), next_step=f"mkdir {quote(str(point))}")
    if point.is_mount() or any(point.iterdir()):
        raise Refused(f"{point} is not empty", subject=str(point), next_step="choose an empty directory")
    return point


def _list(session: Session) -> None:
    rows = [
        MountInfo(
            point=str(each.point),
            export=each.export,
            site=each.site,
            clone=each.clone or None,
            device=each.device or None,
            mounted=each.mounted,
            failed=each.mounted and not each.reads,
        )
        for each in mounts()
        if not each.kind
    ]
    session.output.result(
        "mount.list",
        MountListReply(mounts=rows),
        lambda: session.output.table(
            ("directory", "volume", "device", "clone", "state"),
            [
                (
                    row.point,
                    row.export,
                    row.device or UNKNOWN,
                    row.clone or UNKNOWN,
                    _state(row),
                )
                for row in rows
            ],
            empty="nothing is mounted: `farshore mount G/V@CUT DIR`",
        ),
    )


def _state(row: MountInfo) -> str:
    if row.failed:
        return f"failed: the site went away; `farshore umount {quote(row.point)}`, and mount it again"
    return "mounted" if row.mounted else "not mounted: in use by a command, or left over"
