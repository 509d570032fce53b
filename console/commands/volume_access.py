"""`farshore volume allow`, `disallow` and `access`: which hosts may open a volume at this site."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from console.commands.volume import VolumeArgument
from console.session import Session, session_of
from protocol.commands.base import parse_volume_name
from protocol.commands.volume_access import VolumeAccess, VolumeAccessReply, VolumeAllow, VolumeDisallow
from protocol.errors import UsageError
from protocol.hosts import parse_host


class RightChoice(StrEnum):
    """What a host may do."""

    ro = "ro"
    rw = "rw"


WHO = "A certificate's name (site cert list), or uid:N of this machine."
Force = Annotated[
    bool, typer.Option("--force", help="Although hosts are connected that may not be then: they get errors.")
]


def allow(
    ctx: typer.Context,
    volume: VolumeArgument,
    who: Annotated[str, typer.Argument(metavar="WHO", help=WHO)],
    right: Annotated[RightChoice, typer.Argument(metavar="ro|rw", help="Read only, or read and write.")],
    force: Force = False,
) -> None:
    """Let a host open a volume at this site; from the first one on, nobody else may.

    The list is this site's own: the other site has another one, and other certificates. Root and the daemon's
    user may always."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    host = parse_host(who)
    data = session.call(VolumeAllow(group=group, volume=name, host=host, right=right.value, force=force))

    def show() -> None:
        session.output.line(f"{host} may open {volume}, {right.value}")
        _closed(session, data)

    session.output.result("volume.allow", data, show)


def disallow(
    ctx: typer.Context,
    volume: VolumeArgument,
    who: Annotated[str | None, typer.Argument(metavar="WHO", help=WHO)] = None,
    everybody: Annotated[
        bool, typer.Option("--all", help="Empty the list: the volume is open to whoever reaches the door.")
    ] = False,
    force: Force = False,
) -> None:
    """Take a host off a volume's list, or with --all everyone, which opens the volume to all."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    if (who is None) is not everybody:
        raise UsageError(
            "who is to go is not clear",
            subject=volume,
            next_step=f"`farshore volume disallow {volume} WHO`, or --all in place of WHO",
        )
    host = None if who is None else parse_host(who)
    data = session.call(VolumeDisallow(group=group, volume=name, host=host, force=force))

    def show() -> None:
        done = (
            f"{volume} is open to whoever reaches the door" if data.everybody else f"{host} is off the list"
        )
        session.output.line(done)
        _closed(session, data)

    session.output.result("volume.disallow", data, show)


def access(ctx: typer.Context, volume: VolumeArgument) -> None:
    """Who may open a volume at this site."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    data = session.call(VolumeAccess(group=group, volume=name))
    session.output.result(
        "volume.access",
        data,
        lambda: session.output.table(
            ("host", "right", "connections"),
            [(each.host, each.right or "none", str(each.connections)) for each in data.entries],
            empty=f"whoever reaches the door: `farshore volume allow {volume} WHO ro` or rw",
        ),
    )


def _closed(session: Session, data: VolumeAccessReply) -> None:
    for client in data.closed:
        session.output.note(f"closed: {client}")
