"""`farshore volume export` and `import`: volumes out into image files, and image files in.

Both run here, as a host of the site would: over NBD, and as this command's user.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from msgspec import UNSET, UnsetType, structs

from console.commands.volume import VolumeArgument
from console.confirming import confirmed
from console.figures import size_text, span_text
from console.host_configs import export_of
from console.images.copying import Step, copy_content, require_content
from console.images.formats import QCOW2, RAW, format_of
from console.images.image import ReadableImage
from console.images.nbd_image import NbdImage, connect
from console.images.qcow2 import served
from console.images.raw_file import RawSource
from console.images.writing import Base, Written, write_changes, write_qcow2, write_raw
from console.local_time import monotonic
from console.output import Activity
from console.session import Session, session_of
from console.sites import require_outside_sites
from protocol.commands.base import Reply, parse_volume_name
from protocol.commands.clone import CloneList
from protocol.commands.cut import CutInfo
from protocol.commands.volume import VolumeCreate, VolumeShow, VolumeUri, VolumeUriReply
from protocol.cut_text import CutLatest, NamedCut, cut_text
from protocol.errors import Busy, NotFound, Refused, UsageError, WrongState
from protocol.limits import BLOCK_BYTES

CHANGED_SINCE = "farshore:changed-since/"
STEP_EVERY_S = 0.5

FormatOption = Annotated[
    str | None, typer.Option("--format", metavar="raw|qcow2", help="Default: qcow2 for FILE.qcow2, else raw.")
]


class ImageInfo(Reply, frozen=True, kw_only=True):
    """An image file that was written or read. `file_bytes` and `digest` are null where they are not known;
    `base`, of an export, holds what was there `since`."""

    volume: str
    cut: CutInfo | None
    file: str
    format: str
    size_bytes: int
    data_bytes: int
    copied_bytes: int
    file_bytes: int | None
    digest: str | None
    took_s: float
    since: str | UnsetType | None = UNSET
    base: str | UnsetType | None = UNSET


class ImageStep(Reply, frozen=True, kw_only=True):
    """Progress of `volume export`, `volume import` and `journal replay`."""

    volume: str
    done_bytes: int
    total_bytes: int


def export_volume(
    ctx: typer.Context,
    volume: VolumeArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The image to write.")],
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

    The file gets its name once it is durable and equal; until then it is FILE.partial. A clone is written as
    it is: let nobody write to it meanwhile."""
    session = session_of(ctx)
    kind = format_of(file, image_format)
    group, name = parse_volume_name(volume)
    if (since is None) != (base is None):
        raise UsageError(
            "--since and --base go together", next_step="--base names the file that was exported at that cut"
        )
    if since is not None and kind != QCOW2:
        raise UsageError("only a qcow2 can build on an earlier file", next_step=f"--format {QCOW2}")
    require_outside_sites(file, session.site.directory)
    context = [] if since is None else [CHANGED_SINCE + _fixed(session, since)]
    began = monotonic()
    where = _where(session, group, name, at)
    with connect(export_of(where), *context) as source, steps(session, volume, source) as step:
        if base is not None:
            below = Base(path=base, format=format_of(base, None), context=context[0])
            made = write_changes(source, file, below, whole_check=not quick, replace=replace, step=step)
        else:
            write = write_qcow2 if kind == QCOW2 else write_raw
            made = write(source, file, replace=replace, step=step)
    data = _figures(volume, file, kind, where, made, monotonic() - began)
    data = structs.replace(data, since=since, base=None if base is None else str(base))
    session.output.result("volume.export", data, lambda: _show(session, data))


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


def _fixed(session: Session, since: str) -> str:
    """A cut in a form that an export name takes. UsageError for `latest`."""
    cut = session.cut(since)
    if isinstance(cut, CutLatest):
        raise UsageError("nothing changed since the latest cut", subject=since, next_step="name an older one")
    return cut_text(cut)


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
) -> None:
    """Write an image file into a volume, made if there is none, and read that back.

    Holes stay holes. A volume that exists must have no hosts; what it held can still be read at earlier
    cuts."""
    session = session_of(ctx)
    kind = format_of(file, image_format)
    began = monotonic()
    with _source(file, kind, chain=chain) as source:
        size_bytes = _made_ready(session, volume, source.size_bytes)
        group, name = parse_volume_name(volume)
        where = session.call(VolumeUri(group=group, volume=name, cut=None))
        with connect(export_of(where)) as target:
            _empty(session, target, volume, confirm)
            with steps(session, volume, source) as step:
                wanted = copy_content(source, target, step)
        where = session.call(VolumeUri(group=group, volume=name, cut=CutLatest()))
        with connect(export_of(where)) as written:
            next_step = f"`farshore verify {group} --deep`; then import it once more"
            digest = require_content(written, wanted, size_bytes, volume, next_step)
    made = Written(digest=digest, data_bytes=wanted.data_bytes, copied_bytes=wanted.data_bytes, file_bytes=0)
    data = _figures(volume, file, kind, where, made, monotonic() - began)
    session.output.result("volume.import", data, lambda: _show(session, data))


@contextmanager
def _source(file: Path, kind: str, *, chain: bool) -> Iterator[ReadableImage]:
    if kind == RAW:
        with RawSource(file) as raw:
            yield raw
        return
    with served(file, read_only=True, alone=not chain) as image:
        yield image


def _made_ready(session: Session, volume: str, image_bytes: int) -> int:
    """The size of the volume, which is there now, online and without hosts, and not too small."""
    group, name = parse_volume_name(volume)
    size_bytes = max(BLOCK_BYTES, -(-image_bytes // BLOCK_BYTES) * BLOCK_BYTES)
    try:
        shown = session.call(VolumeShow(group=group, volume=name))
    except NotFound:
        session.call(VolumeCreate(group=group, volume=name, size_bytes=size_bytes))
        return size_bytes
    if shown.size_bytes < size_bytes:
        raise Refused(
            f"{volume} has {size_text(shown.size_bytes)}, the image {size_text(image_bytes)}",
            subject=volume,
            next_step="import it into a new volume",
        )
    hosts = [host.client for host in shown.connections]
    if hosts:
        raise Busy(
            f"{volume} has hosts connected: {', '.join(hosts[:4])}",
            subject=volume,
            next_step="stop them first",
        )
    if not shown.online:
        raise WrongState(
            f"{volume} is offline", subject=volume, next_step=f"`farshore volume online {volume}`"
        )
    return shown.size_bytes


def _empty(session: Session, target: NbdImage, volume: str, confirm: str) -> None:
    """Have nothing but zeroes in the volume, once that is confirmed where it holds something."""
    held = sum(length for _, length in target.data_ranges())
    if held:
        confirmed(
            session,
            confirm,
            volume,
            "overwrite it",
            show=lambda: session.output.line(f"{volume} holds {size_text(held)}, which will be overwritten"),
        )
        target.zero(0, target.size_bytes)
        target.flush()


@contextmanager
def steps(session: Session, volume: str, source: ReadableImage) -> Iterator[Step]:
    """A bar, or a line for scripts now and then."""
    with session.output.activity(volume) as activity:
        yield _Steps(activity, volume, source.size_bytes)


class _Steps:
    """Progress that is not told more often than somebody could read it."""

    def __init__(self, activity: Activity, volume: str, size_bytes: int) -> None:
        self._activity = activity
        self._volume = volume
        self._size_bytes = size_bytes
        self._next = 0.0

    def __call__(self, offset: int) -> None:
        if (now := monotonic()) < self._next:
            return
        self._next = now + STEP_EVERY_S
        data = ImageStep(volume=self._volume, done_bytes=offset, total_bytes=self._size_bytes)
        text = f"{self._volume}: {size_text(offset)} of {size_text(self._size_bytes)}"
        self._activity.update(data, text, done=offset, total=self._size_bytes)


def _figures(
    volume: str, file: Path, kind: str, where: VolumeUriReply, made: Written, took_s: float
) -> ImageInfo:
    return ImageInfo(
        volume=volume,
        cut=where.cut,
        file=str(file),
        format=kind,
        size_bytes=where.size_bytes,
        data_bytes=made.data_bytes,
        copied_bytes=made.copied_bytes,
        file_bytes=made.file_bytes or None,
        digest=made.digest or None,
        took_s=round(took_s, 3),
    )


def _show(session: Session, data: ImageInfo) -> None:
    output = session.output
    output.fields(
        [
            ("volume", data.volume),
            ("cut", session.cut_line(data.cut)),
            ("file", f"{data.file} ({data.format})"),
            ("on top of", f"{data.base}, since {data.since}" if data.base else ""),
            ("size", size_text(data.size_bytes)),
            ("data", f"{size_text(data.data_bytes)}, {size_text(data.copied_bytes)} copied"),
            ("digest", data.digest or ""),
            ("took", span_text(data.took_s)),
        ]
    )
