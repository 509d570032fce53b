"""`farshore volume`: make volumes, look at them, and tell hosts how to reach them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from console.figures import UNKNOWN, parse_size, size_text, span_text
from console.host_configs import FORMATS, export_of, uri
from console.session import Session, session_of
from protocol.command_base import check_name
from protocol.commands import (
    VolumeCreate,
    VolumeDelete,
    VolumeList,
    VolumeOffline,
    VolumeOnline,
    VolumeShow,
    VolumeUri,
    check_confirm,
    parse_volume_name,
)

app = typer.Typer(help="Block volumes.", no_args_is_help=True, rich_markup_mode=None)

VolumeArgument = Annotated[str, typer.Argument(metavar="G/V", help="Group and volume.")]


class UriFormat(StrEnum):
    """Who is to read it."""

    uri = "uri"
    libvirt = "libvirt"
    qemu = "qemu"
    nbdtab = "nbdtab"
    systemd = "systemd"


@app.command()
def create(
    ctx: typer.Context,
    volume: VolumeArgument,
    size: Annotated[str, typer.Option(metavar="SIZE", help="10G is 10 GiB.")],
) -> None:
    """Make a volume; its group is made with its first volume."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    data = session.call(VolumeCreate(group=group, volume=name, size_bytes=parse_size(size)))
    session.output.result(
        "volume.create",
        data,
        lambda: session.output.line(f"volume {volume} made, {size_text(data['size_bytes'])}"),
    )


@app.command("list")
def list_volumes(
    ctx: typer.Context,
    group: Annotated[str | None, typer.Argument(metavar="G", help="One group only.")] = None,
) -> None:
    """Every volume that this site holds."""
    session = session_of(ctx)
    data = session.call(VolumeList(group=None if group is None else check_name(group, "group")))
    session.output.result(
        "volume.list",
        data,
        lambda: session.output.table(
            ("volume", "size", "export", "hosts", "id"),
            [_row(volume) for volume in data["volumes"]],
            empty="no volumes: farshore volume create G/V --size 10G",
        ),
    )


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
        if history:
            _show_history(session, data["history"])

    session.output.result("volume.show", data, show_all)


@app.command("uri")
def show_uri(
    ctx: typer.Context,
    export: Annotated[str, typer.Argument(metavar="G/V[@CUT]", help="A volume, or what it was at a cut.")],
    style: Annotated[UriFormat, typer.Option("--format", help="Who is to read it.")] = UriFormat.uri,
) -> None:
    """How a host reaches a volume. With a cut: read-only, and for good the same content."""
    session = session_of(ctx)
    volume, at, cut = export.partition("@")
    group, name = parse_volume_name(volume)
    data = session.call(VolumeUri(group=group, volume=name, cut=session.cut(cut) if at else None))
    where = export_of(data)
    text = FORMATS[style](where)
    shown = {**data, "uri": uri(where), "format": style.value, "text": text}
    session.output.result("volume.uri", shown, lambda: session.output.lines(text))


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


def _row(volume: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{volume['group']}/{volume['volume']}",
        size_text(volume["size_bytes"]),
        "online" if volume["online"] else "offline",
        str(volume.get("hosts", UNKNOWN)),
        str(volume.get("id", UNKNOWN)),
    )


def _show(session: Session, data: dict[str, Any]) -> None:
    output = session.output
    output.fields(
        [
            ("volume", f"{data['group']}/{data['volume']}"),
            ("size", size_text(data["size_bytes"])),
            ("role", str(data.get("role") or "")),
            (
                "export",
                "online" if data["online"] else ": ".join(filter(None, ("offline", data["offline_reason"]))),
            ),
            ("id", str(data["id"])),
            ("created", session.local(data.get("created"))),
            ("head", session.cut_line(data.get("head"))),
            ("backups", ", ".join(str(b.get("label") or b["id"]) for b in data.get("backups") or [])),
        ]
    )
    for connection in data.get("connections") or []:
        output.line(f"host      {connection['client']} {connection.get('export', '')}".rstrip())
    for interval in data.get("visibility") or []:
        end = "now" if interval.get("to") is None else interval["to"]
        output.line(f"history   {interval['timeline']} from {interval['from']} to {end}")


def _show_history(session: Session, history: dict[str, Any]) -> None:
    output = session.output
    output.line(f"oldest    {session.cut_line(history['oldest'])}: from there on any moment")
    output.line(f"complete  until {session.local(history.get('complete_until'))}")
    output.line(f"window    {span_text(history['window_s'])}")
    for gap in history["gaps"]:
        start = session.cut_line(gap["from"]) or "the start"
        output.line(f"gap       from {start} to {session.cut_line(gap['to'])}: read it at the peer")
    for backup in history["older"]:
        name = backup.get("label") or backup["id"]
        output.line(f"older     backup {name} of {session.local(backup.get('time'))}")
