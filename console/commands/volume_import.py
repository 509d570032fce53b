"""`farshore volume import`: an image file into a volume, as by a host of the site (see `volume_export`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.commands.volume import VolumeArgument
from console.host_configs import export_of
from console.images.copying import copy_content, require_content
from console.images.formats import format_of
from console.images.nbd_image import connect
from console.images.qcow2 import opened_image
from console.images.report import FormatOption, image_info, show_image, steps
from console.images.seed_import import import_seed
from console.images.target import made_ready, make_empty
from console.images.writing import Written
from console.local_time import monotonic
from console.session import session_of
from protocol.commands.base import parse_volume_name
from protocol.commands.volume import VolumeUri
from protocol.cut_text import CutLatest


def import_volume(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The image to read.")],
    volume: VolumeArgument,
    image_format: FormatOption = None,
    chain: Annotated[
        bool, typer.Option("--chain", help="Although the qcow2 builds on other files: read those too.")
    ] = False,
    confirm: Annotated[
        str, typer.Option(metavar="G/V", help="The volume's name once more, if it holds something.")
    ] = "",
    seed: Annotated[
        bool, typer.Option("--seed", help="Into no volume: for a copy that is to come from the peer.")
    ] = False,
) -> None:
    """Write an image file into a volume, made if there is none, and read that back.

    Holes stay holes. A volume that exists must have no hosts; what it held can still be read at earlier
    cuts. With --seed the site keeps the image beside its data, and when a copy of the group comes from the
    peer, only what differs from it is sent."""
    session = session_of(ctx)
    kind = format_of(file, image_format)
    began = monotonic()
    if seed:
        data = import_seed(session, file, kind, volume, chain=chain)
        session.output.result("volume.import", data, lambda: show_image(session, data))
        return
    with opened_image(file, kind, chain=chain) as source:
        size_bytes = made_ready(session, volume, source.size_bytes)
        group, name = parse_volume_name(volume)
        where = session.call(VolumeUri(group=group, volume=name, cut=None))
        with connect(export_of(where)) as target:
            make_empty(session, target, volume, confirm)
            try:
                with steps(session, volume, source) as step:
                    wanted = copy_content(source, target, step)
            except BaseException:
                # Hosts may open it as it is, also after Ctrl-C.
                session.output.note(
                    f"{volume} holds only a part of {file}",
                    f"next: import it once more, with --confirm {volume}",
                )
                raise
        where = session.call(VolumeUri(group=group, volume=name, cut=CutLatest()))
        with connect(export_of(where)) as written:
            next_step = f"`farshore verify {group} --deep`; then import it once more"
            digest = require_content(written, wanted, size_bytes, volume, next_step)
    made = Written(digest=digest, data_bytes=wanted.data_bytes, copied_bytes=wanted.data_bytes, file_bytes=0)
    data = image_info(volume, file, kind, where, made, monotonic() - began)
    session.output.result("volume.import", data, lambda: show_image(session, data))
