"""`farshore volume import`: an image into a volume, as by a host of the site (see `volume_export`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.commands.volume import VolumeArgument
from console.images.formats import RAW, format_of
from console.images.report import FormatOption, image_info, show_image
from console.images.seed_import import import_seed
from console.images.stream_images import STREAM, opened_source
from console.images.target import confirm_loss, fill, make_ready
from console.images.writing import Written
from console.local_time import monotonic
from console.session import session_of
from protocol.errors import UsageError
from protocol.quantities import parse_bytes


def import_volume(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="The image to read; - is standard input.")],
    volume: VolumeArgument,
    image_format: FormatOption = None,
    chain: Annotated[
        bool,
        typer.Option(
            "--chain", help="Although the image builds on other files, or is in several: read those too."
        ),
    ] = False,
    confirm: Annotated[
        str, typer.Option(metavar="G/V", help="The volume's name once more, if it holds something.")
    ] = "",
    seed: Annotated[
        bool, typer.Option("--seed", help="Into no volume: for a copy that is to come from the peer.")
    ] = False,
    size: Annotated[
        str, typer.Option(metavar="SIZE", help="Of what comes by -: a raw image then needs no room here.")
    ] = "",
) -> None:
    """Write an image into a volume, made if there is none, and read that back.

    Holes stay holes. A volume that exists must have no hosts; what it held can still be read at earlier
    cuts, and until all of the image is there it has none. With --seed the site keeps the image beside its
    data, and when a copy of the group comes from the peer, only what differs from it is sent."""
    session = session_of(ctx)
    kind = RAW if file == STREAM and image_format is None else format_of(Path(file), image_format)
    sure, said_bytes = image_format is not None, _size(size)
    with opened_source(file, kind, chain=chain, sure=sure, size_bytes=said_bytes) as source:
        began = monotonic()
        if seed:
            data = import_seed(session, source, file, kind, volume)
        else:
            make_ready(session, volume, source.size_bytes)
            held = confirm_loss(session, volume, confirm)
            where, wanted, digest = fill(session, volume, source, file, held)
            copied = wanted.data_bytes
            made = Written(digest=digest, data_bytes=copied, copied_bytes=copied, file_bytes=0)
            data = image_info(volume, file, kind, where, made, monotonic() - began)
    session.output.result("volume.import", data, lambda: show_image(session, data))


def _size(text: str) -> int | None:
    """Bytes of a stream, if they are said: any number of them."""
    if not text:
        return None
    size_bytes, rest = parse_bytes(text, "size")
    if rest or not size_bytes:
        raise UsageError(f"no stream has {text}", subject=text)
    return size_bytes
