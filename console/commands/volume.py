"""`farshore volume`: make volumes, look at them, and tell hosts how to reach them."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Annotated

import typer
from msgspec.structs import asdict, replace

from console.empty_lists import nothing
from console.figures import parse_size, size_text, span_text
from console.host_configs import FORMATS, Export, export_of, uri
from console.libvirt_hosts import STYLES, disk_text, place_in_group, unreachable
from console.options import After, Limit
from console.session import Session, session_of
from protocol.commands.base import check_confirm, check_name, parse_volume_name
from protocol.commands.volume import (
    HistoryInfo,
    VolumeDelete,
    VolumeInfo,
    VolumeList,
    VolumeOffline,
    VolumeOnline,
    VolumeRename,
    VolumeResize,
    VolumeShow,
    VolumeShowReply,
    VolumeUri,
    VolumeUriReply,
)
from protocol.endpoints import is_every_address
from protocol.errors import UsageError

app = typer.Typer(help="Block volumes.", no_args_is_help=True, rich_markup_mode=None)

VolumeArgument = Annotated[str, typer.Argument(metavar="G/V", help="Group and volume.")]


class UriFormat(StrEnum):
    """Who is to read it."""

    uri = "uri"
    libvirt = "libvirt"
    libvirt_commandline = "libvirt-commandline"
    qemu = "qemu"
    nbdtab = "nbdtab"
    systemd = "systemd"


class UriShown(VolumeUriReply, frozen=True, kw_only=True):
    """Where the export is, its URI, and `text` in the format that was asked for."""

    uri: str
    format: str
    text: str


@app.command("list")
def list_volumes(
    ctx: typer.Context,
    group: Annotated[str | None, typer.Argument(metavar="G", help="One group only.")] = None,
    limit: Limit = None,
    after: After = None,
) -> None:
    """Every volume that this site holds."""
    session = session_of(ctx)
    data = session.listed(
        VolumeList(group=None if group is None else check_name(group, "group")), limit, after
    )
    session.output.result(
        "volume.list",
        data,
        lambda: session.output.table(
            ("volume", "size", "export", "hosts", "id"),
            [_row(volume) for volume in data.volumes],
            empty=nothing(session, data.volumes, "no volumes: `farshore volume create G/V --size 10G`"),
        ),
    )
    session.say_more(data)


@app.command()
def show(
    ctx: typer.Context,
    volume: VolumeArgument,
    history: Annotated[
        bool, typer.Option("--history", help="How far back any moment can be read at this site.")
    ] = False,
) -> None:
    """One volume: its hosts, its backups, and which stretches of history it consists of."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    data = session.call(VolumeShow(group=group, volume=name, history=history))

    def show_all() -> None:
        _show(session, data)
        if data.history:
            _show_history(session, data.history)

    session.output.result("volume.show", data, show_all)


@app.command("uri")
def show_uri(
    ctx: typer.Context,
    exports: Annotated[
        list[str], typer.Argument(metavar="G/V[@CUT]…", help="A volume, or what it was at a cut.")
    ],
    style: Annotated[UriFormat, typer.Option("--format", help="Who is to read it.")] = UriFormat.uri,
    tcp: Annotated[bool, typer.Option("--tcp", help="For a host on another machine.")] = False,
    target: Annotated[
        str, typer.Option(metavar="DEV", help="libvirt: the first disk; default by its place in the group.")
    ] = "",
    reconnect: Annotated[
        bool, typer.Option("--reconnect", help="libvirt 11 (Debian 13): outlive restarts of the site.")
    ] = False,
) -> None:
    """How a host reaches a volume. With a cut: read-only, and for good the same content.

    Of several, libvirt's disks are vda, vdb and so on as they are named here."""
    session = session_of(ctx)
    if (target or reconnect) and style.value not in STYLES:
        raise UsageError("--target and --reconnect are for libvirt", next_step="--format libvirt")
    if reconnect and style is not UriFormat.libvirt:
        raise UsageError(f"{style.value} reconnects as it is", next_step="leave out --reconnect")
    wheres = []
    for index, export in enumerate(exports):
        volume, at, cut = export.partition("@")
        group, name = parse_volume_name(volume)
        data = session.call(VolumeUri(group=group, volume=name, cut=session.cut(cut) if at else None))
        where = export_of(data, remote=tcp)
        wheres.append(where)
        if style.value in STYLES:
            if len(exports) == 1 and not target:
                index = place_in_group(session, group, name)
            text = disk_text(style.value, where, target or "vda", index, reconnect=reconnect)
        else:
            text = FORMATS[style](where)
        shown = UriShown(**asdict(data), uri=uri(where), format=style.value, text=text)
        session.output.result("volume.uri", shown, partial(session.output.lines, text))
    if any(_is_anywhere(where) for where in wheres):
        session.output.note("that is every address of the site: write one, or its name")
    if style.value in STYLES:
        _say_for_libvirt(session, wheres, style, reconnect=reconnect)


def _is_anywhere(where: Export) -> bool:
    """Whether a host would have to know which of the site's addresses to take."""
    return not where.unix and (not where.host or is_every_address(f"tcp://{where.host}:{where.port}"))


def _say_for_libvirt(session: Session, wheres: list[Export], style: UriFormat, *, reconnect: bool) -> None:
    if style is UriFormat.libvirt and not reconnect:
        session.output.note(
            "a restart of the site's daemon ends the disk: --reconnect keeps it with Debian 13's libvirt, "
            "--format libvirt-commandline with Debian 12's, which knows no reconnect for NBD"
        )
    for path in sorted({where.unix for where in wheres if where.unix}):
        why = unreachable(path)
        if why:
            session.output.note(f"{why}: see `nbd_socket_group` in docs/operations.md, Hosts of libvirt")


@app.command()
def online(ctx: typer.Context, volume: VolumeArgument) -> None:
    """Open the export to hosts, after `offline`, a restore or a role that moved.

    At the secondary of a split pair this detaches the group: hosts may write here too, and `pair resync
    --source local|remote` at the primary says later whose writes stay. The other's are kept as a branch."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    data = session.call(VolumeOnline(group=group, volume=name))
    session.output.result("volume.online", data, lambda: session.output.line(f"{volume} online"))


@app.command()
def offline(
    ctx: typer.Context,
    volume: VolumeArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Although hosts are connected: they get errors.")
    ] = False,
) -> None:
    """Close the export to hosts."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    data = session.call(VolumeOffline(group=group, volume=name, force=force))
    session.output.result("volume.offline", data, lambda: session.output.line(f"{volume} offline"))


@app.command()
def delete(
    ctx: typer.Context,
    volume: VolumeArgument,
    confirm: Annotated[str, typer.Option(metavar="G/V", help="The volume's name once more.")] = "",
) -> None:
    """Delete a volume. It can still be read at earlier cuts that are retained."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    check_confirm(confirm, volume, dry_run=False)
    data = session.call(VolumeDelete(group=group, volume=name, confirm=confirm))
    session.output.result("volume.delete", data, lambda: session.output.line(f"{volume} deleted"))


@app.command()
def resize(
    ctx: typer.Context,
    volume: VolumeArgument,
    size: Annotated[str, typer.Argument(metavar="SIZE", help="20G is 20 GiB; +5G: so much more.")],
    force: Annotated[
        bool, typer.Option("--force", help="Smaller although hosts are connected: errors past the new end.")
    ] = False,
    reconnect: Annotated[
        bool, typer.Option("--reconnect", help="Send hosts away: those that come back see the new size.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; do nothing.")] = False,
    confirm: Annotated[str, typer.Option(metavar="G/V", help="To make it smaller: its name.")] = "",
) -> None:
    """Give a volume another size, while hosts use it. Every earlier cut keeps the size that it had.

    A host sees the new size when it connects anew; a guest of QEMU then by block_resize. Shrink the file
    system before the volume: what lies past the new end is gone, and comes back with the printed restore."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    size_bytes = parse_size(size.removeprefix("+"))
    if size.startswith("+"):
        size_bytes += session.call(VolumeShow(group=group, volume=name)).size_bytes
    data = session.call(
        VolumeResize(
            group=group,
            volume=name,
            size_bytes=size_bytes,
            force=force,
            reconnect=reconnect,
            dry_run=dry_run,
            confirm=confirm,
        )
    )
    data = replace(data, undo=session.output.pasted(data.undo))

    def show_it() -> None:
        change = f"{size_text(data.before_bytes)} → {size_text(data.size_bytes)}"
        if data.size_bytes == data.before_bytes:
            session.output.line(f"{volume} has {size_text(data.size_bytes)} already")
            return
        session.output.line(f"{volume} {'would change: ' if data.dry_run else ''}{change}")
        if not data.dry_run:
            session.output.line(f"back      {data.undo}")

    session.output.result("volume.resize", data, show_it)


@app.command()
def rename(
    ctx: typer.Context,
    volume: VolumeArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its new name, without the group.")],
    force: Annotated[
        bool, typer.Option("--force", help="Although hosts are connected: they come back by the new name.")
    ] = False,
) -> None:
    """Give a volume another name. Cuts before show it by the name that it had, or by the new one."""
    session = session_of(ctx)
    group, before = parse_volume_name(volume)
    new = check_name(name.removeprefix(f"{group}/"), "volume")
    data = session.call(VolumeRename(group=group, volume=before, to=new, force=force))
    session.output.result(
        "volume.rename", data, lambda: session.output.line(f"{volume} is {data.group}/{data.volume} now")
    )


def _row(volume: VolumeInfo) -> tuple[str, ...]:
    return (
        f"{volume.group}/{volume.volume}",
        size_text(volume.size_bytes),
        "online" if volume.online else "offline",
        str(volume.hosts),
        volume.id,
    )


def _show(session: Session, data: VolumeShowReply) -> None:
    output = session.output
    output.fields(
        [
            ("volume", f"{data.group}/{data.volume}"),
            ("size", size_text(data.size_bytes)),
            ("role", data.role),
            (
                "export",
                "online" if data.online else ": ".join(filter(None, ("offline", data.offline_reason))),
            ),
            ("id", data.id),
            ("created", session.local(data.created)),
            ("head", session.cut_line(data.head)),
            ("backups", ", ".join(backup.label or backup.id for backup in data.backups)),
        ]
    )
    for connection in data.connections:
        output.line(f"host      {connection.client} {connection.export}".rstrip())
    for interval in data.visibility:
        end = "now" if interval.to is None else interval.to
        output.line(f"history   {interval.timeline} from {interval.start} to {end}")


def _show_history(session: Session, history: HistoryInfo) -> None:
    output = session.output
    output.line(f"oldest    {session.cut_line(history.oldest)}: from there on any moment")
    output.line(f"complete  until {session.local(history.complete_until)}")
    output.line(f"window    {span_text(history.window_s)}")
    for gap in history.gaps:
        start = session.cut_line(gap.start) or "the start"
        output.line(f"gap       from {start} to {session.cut_line(gap.to)}: read it at the peer")
    for backup in history.older:
        output.line(f"older     backup {backup.label or backup.id} of {session.local(backup.time)}")
