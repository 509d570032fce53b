"""The volume that an image goes into: there, large enough, and closed to hosts until all of it is there."""

from __future__ import annotations

from console.confirming import confirmed
from console.figures import size_text
from console.host_configs import export_of
from console.images.copying import copy_content, require_content
from console.images.image import ReadableImage
from console.images.nbd_image import connect
from console.images.report import steps
from console.session import Session
from protocol.commands.base import parse_volume_name
from protocol.commands.volume import VolumeCreate, VolumeShow, VolumeUri, VolumeUriReply
from protocol.commands.volume_import import VolumeFill, VolumeFilled
from protocol.content_digest import ContentDigest
from protocol.cut_text import CutLatest
from protocol.errors import Busy, NotFound, Refused, UsageError
from protocol.limits import VOLUME_BYTES_MAX


def make_ready(session: Session, volume: str, image_bytes: int) -> None:
    """The volume is there then, without hosts, and not too small."""
    group, name = parse_volume_name(volume)
    if not 0 < image_bytes <= VOLUME_BYTES_MAX:
        raise UsageError(f"the image has {size_text(image_bytes)}: no volume has", subject=volume)
    try:
        shown = session.call(VolumeShow(group=group, volume=name))
    except NotFound:
        session.call(VolumeCreate(group=group, volume=name, size_bytes=image_bytes))
        return
    if shown.size_bytes < image_bytes:
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


def confirm_loss(session: Session, volume: str, confirm: str) -> int:
    """Bytes that the volume holds, once it is confirmed that they are to be overwritten."""
    group, name = parse_volume_name(volume)
    where = session.call(VolumeUri(group=group, volume=name, cut=CutLatest()))
    with connect(export_of(where)) as now:
        held = sum(length for _, length in now.data_ranges())
    if held:
        confirmed(
            session,
            confirm,
            volume,
            "overwrite it",
            show=lambda: session.output.line(f"{volume} holds {size_text(held)}, which will be overwritten"),
        )
    return held


def fill(
    session: Session, volume: str, source: ReadableImage, name: str, held: int
) -> tuple[VolumeUriReply, ContentDigest, str]:
    """Have in the volume, which held so many bytes, what the source has, and zeroes behind; closed to hosts
    until it was read back. It stays closed, and says why, if that fails. Returns where it was read back, what
    was read of the source, and the digest."""
    group, volume_name = parse_volume_name(volume)
    begun = session.call(VolumeFill(group=group, volume=volume_name))
    try:
        with connect(export_of(begun)) as target:
            if held:
                target.zero(0, target.size_bytes)
                target.flush()
            with steps(session, volume, source) as step:
                wanted = copy_content(source, target, step)
        where = session.call(VolumeUri(group=group, volume=volume_name, cut=CutLatest()))
        with connect(export_of(where)) as written:
            next_step = f"`farshore verify {group} --deep`; then import it once more"
            digest = require_content(written, wanted, where.size_bytes, volume, next_step)
        session.call(VolumeFilled(group=group, volume=volume_name, token=begun.token))
    except BaseException:
        # Also after Ctrl-C.
        session.output.note(
            f"{volume} holds only a part of {name}, and is closed to hosts",
            f"next: import it once more, with --confirm {volume}",
            f"undo: farshore restore volume {volume} --at {begun.before.text} --confirm {volume}",
        )
        raise
    return where, wanted, digest
