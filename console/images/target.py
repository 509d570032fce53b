"""The volume that an image goes into: there, large enough, without hosts, and empty."""

from __future__ import annotations

from console.confirming import confirmed
from console.figures import size_text
from console.images.nbd_image import NbdImage
from console.session import Session
from protocol.commands.base import parse_volume_name
from protocol.commands.volume import VolumeCreate, VolumeShow
from protocol.errors import Busy, NotFound, Refused, WrongState


def made_ready(session: Session, volume: str, image_bytes: int) -> int:
    """The size of the volume, which is there now, online and without hosts, and not too small."""
    group, name = parse_volume_name(volume)
    size_bytes = max(1, image_bytes)
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


def require_overwritable(session: Session, target: NbdImage, volume: str, confirm: str) -> bool:
    """Whether the volume holds something; Unsafe if it does, and that was not confirmed."""
    held = sum(length for _, length in target.data_ranges())
    if held:
        confirmed(
            session,
            confirm,
            volume,
            "overwrite it",
            show=lambda: session.output.line(f"{volume} holds {size_text(held)}, which will be overwritten"),
        )
    return bool(held)


def make_empty(session: Session, target: NbdImage, volume: str, confirm: str) -> None:
    """Have nothing but zeroes in the volume, once that is confirmed where it holds something."""
    if require_overwritable(session, target, volume, confirm):
        target.zero(0, target.size_bytes)
        target.flush()
