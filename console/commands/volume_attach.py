"""`farshore volume attach`, `detach` and `mkfs`: a volume as a block device here, and a file system on it.

It is a host of the site like any other, over nbdfuse and a loop device. What it costs and endangers:
docs/operations.md, as for `farshore mount`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from console.commands.volume import VolumeArgument
from console.figures import UNKNOWN
from console.host_configs import export_of, uri
from console.images.target import confirm_loss
from console.mounts.clones import device_noted, site_of, take_down, until_told
from console.mounts.devices import (
    attached_as,
    attached_devices,
    make_file_system,
    require_mkfs,
    require_unmounted,
)
from console.mounts.mounting import require_root
from console.mounts.programs import find_program
from console.session import Session, session_of
from protocol.commands.base import Reply, parse_volume_name
from protocol.commands.clone import CloneList
from protocol.commands.cut import CutInfo
from protocol.commands.volume import VolumeShow, VolumeUri, VolumeUriReply
from protocol.cut_text import CutLatest
from protocol.errors import Busy, Refused, UsageError


class FileSystemKind(StrEnum):
    """What `mkfs` makes."""

    ext4 = "ext4"
    xfs = "xfs"
    btrfs = "btrfs"
    vfat = "vfat"


class AttachReply(Reply, frozen=True, kw_only=True):
    """The device. `cut`: null for what is live."""

    export: str
    device: str
    writable: bool
    cut: CutInfo | None
    warnings: list[str]


class DeviceInfo(Reply, frozen=True, kw_only=True):
    """A volume that is attached to this machine. `failed`: its connection to the site is gone, and every read
    and write of it an error; `device` null: it is coming up, or was left over."""

    export: str
    site: str
    device: str | None
    failed: bool


class AttachListReply(Reply, frozen=True, kw_only=True):
    """Of this machine."""

    devices: list[DeviceInfo]


class DetachReply(Reply, frozen=True, kw_only=True):
    """What it was."""

    export: str
    device: str | None


class MkfsReply(Reply, frozen=True, kw_only=True):
    """What was made."""

    export: str
    filesystem: str
    label: str
    size_bytes: int


def attach(
    ctx: typer.Context,
    export: Annotated[
        str | None, typer.Argument(metavar="G/V[@CUT]", help="A volume, or what it was, or CLONE/V.")
    ] = None,
    writable: Annotated[
        bool, typer.Option("--writable", help="The live volume, or a clone's, to write to.")
    ] = False,
    as_list: Annotated[bool, typer.Option("--list", help="Show what is attached to this machine.")] = False,
) -> None:
    """Make a volume a block device of this machine; needs root. `farshore volume detach` undoes it.

    Read-only, at the newest cut if none is named. With --writable it is a host of the live volume, which must
    have no other."""
    session = session_of(ctx)
    if as_list:
        _list(session)
        return
    if export is None:
        raise UsageError(
            "what?", next_step="`farshore volume attach G/V@CUT`, or `farshore volume attach --list`"
        )
    require_root()
    where = _where(session, export, writable)
    with until_told(), device_noted(session, export) as made:
        warning = made.attach(uri(export_of(where)), read_only=not writable)
        device = made.make_whole_device(read_only=not writable)
    data = AttachReply(
        export=export,
        device=device,
        writable=writable,
        cut=where.cut,
        warnings=[warning] if warning and writable else [],
    )

    def show() -> None:
        session.output.line(f"{export} is {device}, {'writable' if writable else 'read-only'}")
        session.output.fields([("cut", session.cut_line(data.cut))])
        for each in data.warnings:
            session.output.note(f"warning: {each}")
        session.output.note(f"undo: farshore volume detach {export}")

    session.output.result("volume.attach", data, show)


def detach(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="G/V[@CUT]|DEVICE", help="As it was attached, or /dev/loopN.")
    ],
) -> None:
    """Undo an attach: loop device and nbdfuse. Repeat it after any error."""
    session = session_of(ctx)
    require_root()
    made = attached_as(name, site_of(session))
    require_unmounted(made)
    data = DetachReply(export=made.export, device=made.device or None)
    take_down(session, made)
    session.output.result("volume.detach", data, lambda: session.output.line(f"{data.export} detached"))


def mkfs(
    ctx: typer.Context,
    volume: VolumeArgument,
    kind: Annotated[FileSystemKind, typer.Option("--type", help="Which file system.")] = FileSystemKind.ext4,
    label: Annotated[str, typer.Option(metavar="LABEL", help="The file system's name.")] = "",
    confirm: Annotated[
        str, typer.Option(metavar="G/V", help="The volume's name once more, if it holds something.")
    ] = "",
) -> None:
    """Make a file system on a volume that no host uses; needs root. `farshore mount` then mounts it.

    What the volume held can still be read at earlier cuts."""
    session = session_of(ctx)
    if label.startswith("-"):
        raise UsageError(f"{label!r} is no label", subject=label)
    require_mkfs_here(kind)
    mkfs_on(session, volume, kind, label=label, confirm=confirm)


def require_mkfs_here(kind: FileSystemKind) -> None:
    """NotAllowed, or NotFound with the package to install, where none could be made."""
    require_root()
    for program in ("nbdfuse", "losetup"):
        find_program(program)
    require_mkfs(kind.value)


def mkfs_on(
    session: Session, volume: str, kind: FileSystemKind, *, label: str = "", confirm: str = ""
) -> None:
    """Make it, and say so. FarshoreError."""
    where = _where(session, volume, writable=True)
    confirm_loss(session, volume, confirm)
    with until_told(), device_noted(session, volume) as made:
        made.attach(uri(export_of(where)), read_only=False)
        make_file_system(made.make_whole_device(read_only=False), kind.value, label)
    take_down(session, made)
    data = MkfsReply(export=volume, filesystem=kind.value, label=label, size_bytes=where.size_bytes)

    def show() -> None:
        session.output.line(f"{kind.value} made on {volume}")
        session.output.note(f"next: farshore mount {volume} DIR --writable")

    session.output.result("volume.mkfs", data, show)


def _where(session: Session, export: str, writable: bool) -> VolumeUriReply:
    """Its export: live if it is to be written to, else at a cut, or a clone as it is."""
    name, at_sign, text = export.partition("@")
    group, volume = parse_volume_name(name)
    clone = not at_sign and any(each.clone == group for each in session.call(CloneList()).clones)
    if at_sign and writable:
        raise Refused(
            f"{export} is the past, which nobody writes",
            subject=export,
            next_step=f"`farshore clone create {export} try`, then `farshore volume attach try/{volume}`",
        )
    if clone:
        return session.call(VolumeUri(group=group, volume=volume))
    if not writable:
        cut = session.cut(text) if at_sign else CutLatest()
        return session.call(VolumeUri(group=group, volume=volume, cut=cut))
    hosts = session.call(VolumeShow(group=group, volume=volume)).connections
    if hosts:
        raise Busy(
            f"{name} has {len(hosts)} hosts connected; two that write to one file system destroy it",
            subject=name,
            next_step=f"stop them first, or attach a clone: `farshore clone create {name}@latest try`",
        )
    return session.call(VolumeUri(group=group, volume=volume))


def _list(session: Session) -> None:
    rows = [
        DeviceInfo(
            export=each.export,
            site=each.site,
            device=each.device or None,
            failed=bool(each.device) and not each.reads,
        )
        for each in attached_devices()
    ]
    session.output.result(
        "volume.attached",
        AttachListReply(devices=rows),
        lambda: session.output.table(
            ("volume", "device", "state"),
            [(row.export, row.device or UNKNOWN, _state(row)) for row in rows],
            empty="nothing is attached: `farshore volume attach G/V`",
        ),
    )


def _state(row: DeviceInfo) -> str:
    if row.failed:
        return f"failed: the site went away; `farshore volume detach {row.export}`, and attach it again"
    return "attached" if row.device else "in use by a command, or left over"
