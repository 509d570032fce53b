"""`farshore volume create`: a volume, and at once what most are made for: a copy at a peer, a file system."""

from __future__ import annotations

from typing import Annotated

import typer

from console.commands.pair import CREATE_TIMEOUT_S, MODE_HELP, Mode
from console.commands.volume import VolumeArgument
from console.commands.volume_attach import FileSystemKind, mkfs_on, require_mkfs_here
from console.figures import parse_size, size_text
from console.peer_choice import peer_or_token
from console.session import session_of
from protocol.commands.base import parse_volume_name
from protocol.commands.pair import PairCreate, PairShow
from protocol.commands.volume import VolumeCreate
from protocol.errors import FarshoreError, UsageError


def create(
    ctx: typer.Context,
    volume: VolumeArgument,
    size: Annotated[str, typer.Option(metavar="SIZE", help="10G is 10 GiB.")],
    peer: Annotated[
        str,
        typer.Option(
            "--with", metavar="PEER|TOKEN", help="Replicate its group there, as `pair create` does."
        ),
    ] = "",
    mode: Annotated[Mode | None, typer.Option(help=MODE_HELP)] = None,
    kind: Annotated[
        FileSystemKind | None, typer.Option("--mkfs", help="Make that file system on it; needs root.")
    ] = None,
) -> None:
    """Make a volume; its group is made with its first volume."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    size_bytes = parse_size(size)
    if mode is not None and not peer:
        raise UsageError("--mode is of a pair", subject=volume, next_step="add --with PEER")
    if kind is not None:
        # Nothing is made that would lack what was asked for.
        require_mkfs_here(kind)
    peer = peer and peer_or_token(session, peer)
    data = session.call(VolumeCreate(group=group, volume=name, size_bytes=size_bytes))
    session.output.result(
        "volume.create",
        data,
        lambda: session.output.line(f"volume {volume} made, {size_text(data.size_bytes)}"),
    )
    if peer:
        try:
            pair = session.call(PairShow(group=group))
            if pair.peer != peer:
                command = PairCreate(group=group, peer=peer, mode=(mode or Mode.ASYNC).value)
                pair = session.call(command, CREATE_TIMEOUT_S)
        except FarshoreError:
            again = session.output.pasted(f"`farshore pair create {group} --with {peer}`")
            session.output.note(f"{volume} is made, and not replicated: {again} tries that again")
            raise
        said = f"{group} is replicated to {pair.peer}, {pair.mode}"
        session.output.result("pair.create", pair, lambda: session.output.line(said))
        if not pair.peer_connected and not session.output.as_json:
            reached = session.output.pasted(f"`farshore wait {group} --state paired`")
            session.output.note(f"{pair.peer} has nothing of it yet: {reached} ends once it has all")
    if kind is not None:
        mkfs_on(session, volume, kind)
