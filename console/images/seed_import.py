"""An image that a site is to keep as a seed: begun, written by this program, and kept."""

from __future__ import annotations

from pathlib import Path

from console.figures import size_text
from console.images.qcow2 import opened_image
from console.images.report import ImageInfo, steps
from console.images.seed_files import write_seed
from console.local_time import monotonic
from console.session import Session
from protocol.commands.base import parse_volume_name
from protocol.commands.seed import SeedBegin, SeedKeep
from protocol.errors import UsageError
from protocol.limits import VOLUME_BYTES_MAX

# A site makes the whole copy durable before it keeps it.
KEEP_S = 3600.0


def import_seed(session: Session, file: Path, kind: str, volume: str, *, chain: bool) -> ImageInfo:
    """Have the site keep an image for a copy of the volume that is to come."""
    group, name = parse_volume_name(volume)
    began = monotonic()
    with opened_image(file, kind, chain=chain) as source:
        if not 0 < source.size_bytes <= VOLUME_BYTES_MAX:
            raise UsageError(f"{file} has {size_text(source.size_bytes)}: no volume has", subject=str(file))
        data_bytes = sum(length for _, length in source.data_ranges())
        about = {"size_bytes": source.size_bytes, "data_bytes": data_bytes}
        begun = session.call(SeedBegin(group=group, volume=name, **about))
        with steps(session, volume, source) as step:
            content = write_seed(source, begun.image, begun.digests, step)
        kept = session.call(SeedKeep(group=group, volume=name, token=begun.token), KEEP_S)
    return ImageInfo(
        volume=volume,
        cut=None,
        file=str(file),
        format=kind,
        size_bytes=kept.size_bytes,
        data_bytes=content.data_bytes,
        copied_bytes=content.data_bytes,
        file_bytes=None,
        digest=content.text(kept.size_bytes),
        took_s=round(monotonic() - began, 3),
    )
