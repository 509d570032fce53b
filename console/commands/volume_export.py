"""`farshore volume export`: a volume out into an image file.

It runs here, as a host of the site would: over NBD, and as this command's user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs

from console.commands.volume import VolumeArgument
from console.host_configs import export_of
from console.images.formats import QCOW2, RAW, format_of
from console.images.nbd_image import connect
from console.images.report import FormatOption, image_info, show_image, steps
from console.images.stream_images import STREAM, require_stream, write_stream
from console.images.writing import Base, write_changes, write_image
from console.local_time import monotonic
from console.session import Session, session_of
from console.sites import require_outside_sites
from protocol.commands.base import parse_volume_name
from protocol.commands.clone import CloneList
from protocol.commands.volume import VolumeUri, VolumeUriReply
from protocol.cut_text import CutLatest, NamedCut, cut_text
from protocol.errors import NotFound, UsageError

CHANGED_SINCE = "farshore:changed-since/"


def export_volume(
    ctx: typer.Context,
    volume: VolumeArgument,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="The image to write; - is standard output.")],
    at: Annotated[str | None, typer.Option(metavar="CUT", help="Which moment; default the latest.")] = None,
    image_format: FormatOption = None,
    since: Annotated[
        str | None, typer.Option(metavar="CUT", help="Only what changed since; needs --base.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The export of that cut: the new one builds on it.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --since: compare what was written, not the whole.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Although FILE exists.")] = False,
) -> None:
    """Write a volume as it was at one moment into an image file, and read that back.

    The file gets its name once it is durable and equal; until then it is FILE.partial. To standard output
    goes a raw image, which is not read back. A clone is written as it is: let nobody write to it."""
    session = session_of(ctx)
    if file == STREAM:
        _export_stream(session, volume, at, image_format, alone=since is None and base is None)
        return
    path = Path(file)
    kind = format_of(path, image_format)
    group, name = parse_volume_name(volume)
    if (since is None) != (base is None):
        raise UsageError(
            "--since and --base go together", next_step="--base names the file that was exported at that cut"
        )
    if since is not None and kind != QCOW2:
        raise UsageError("only a qcow2 can build on an earlier file", next_step=f"--format {QCOW2}")
    require_outside_sites(path, session.site.directory)
    context, size_before = [], 0
    if since is not None:
        before = _before(session, since)
        context.append(CHANGED_SINCE + cut_text(before))
        size_before = session.call(VolumeUri(group=group, volume=name, cut=before)).size_bytes
    began = monotonic()
    where = _where(session, group, name, at)
    with connect(export_of(where), *context) as source, steps(session, volume, source) as step:
        if base is not None:
            below = Base(path=base, format=format_of(base, None), context=context[0], size_bytes=size_before)
            made = write_changes(source, path, below, whole_check=not quick, replace=replace, step=step)
        else:
            made = write_image(source, path, kind, replace=replace, step=step)
    data = image_info(volume, file, kind, where, made, monotonic() - began)
    data = structs.replace(data, since=since, base=None if base is None else str(base))
    session.output.result("volume.export", data, lambda: show_image(session, data))


def _export_stream(
    session: Session, volume: str, at: str | None, image_format: str | None, *, alone: bool
) -> None:
    """The same to standard output, which is the image's alone: what is said goes to standard error."""
    if not alone:
        raise UsageError("only a whole image goes to standard output", next_step="write it to a FILE")
    require_stream(image_format or RAW, as_json=session.output.as_json)
    group, name = parse_volume_name(volume)
    where = _where(session, group, name, at)
    with connect(export_of(where)) as source, steps(session, volume, source) as step:
        digest = write_stream(source, step)
    cut = session.cut_line(where.cut)
    session.output.note(f"{volume} {cut}".rstrip(), f"digest {digest.text(where.size_bytes)}, not read back")


def _where(session: Session, group: str, volume: str, at: str | None) -> VolumeUriReply:
    """A cut's export, or a clone's, which has one moment only if nobody writes."""
    try:
        cut: NamedCut = CutLatest() if at is None else session.cut(at)
        return session.call(VolumeUri(group=group, volume=volume, cut=cut, sound=True))
    except NotFound as error:
        if at is not None:
            raise
        clones = session.call(CloneList(group=None)).clones
        if all(clone.clone != group for clone in clones):
            raise error from None
        return session.call(VolumeUri(group=group, volume=volume, cut=None))


def _before(session: Session, since: str) -> NamedCut:
    """What --since names. UsageError for `latest`."""
    cut = session.cut(since)
    if isinstance(cut, CutLatest):
        raise UsageError("nothing changed since the latest cut", subject=since, next_step="name an older one")
    return cut
