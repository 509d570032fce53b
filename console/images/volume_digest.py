"""The digest of all of a volume's content at a cut, read as a host reads it."""

from __future__ import annotations

from console.host_configs import export_of
from console.images.image import content_of
from console.images.nbd_image import connect
from console.session import Session
from protocol.commands.drill import VolumeDigest
from protocol.commands.volume import VolumeUri
from protocol.cut_text import NamedCut


def volume_digest(session: Session, group: str, volume: str, cut: NamedCut) -> VolumeDigest:
    """FarshoreError if some of it is known to be damaged, or cannot be read."""
    where = session.call(VolumeUri(group=group, volume=volume, cut=cut, sound=True))
    with connect(export_of(where)) as image:
        digest = content_of(image).text(image.size_bytes)
        return VolumeDigest(volume=volume, digest=digest, size_bytes=image.size_bytes)
