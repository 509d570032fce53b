"""An image that a site is to keep as a seed: begun, written by this program, and kept."""

from __future__ import annotations

import os

from console.figures import size_text
from console.images.image import ReadableImage
from console.images.report import ImageInfo, steps
from console.images.seed_files import write_seed
from console.local_time import monotonic
from console.session import Session
from protocol.commands.base import parse_volume_name
from protocol.commands.seed import SeedBegin, SeedKeep
from protocol.errors import Refused, UsageError
from protocol.limits import VOLUME_BYTES_MAX
from protocol.seeds import SEEDS, UNFINISHED

# A site makes the whole copy durable before it keeps it.
KEEP_S = 3600.0


def place_of(directory: str, group: str, volume: str, path: str) -> str:
    """Where a file that a site made for a seed is, by the directory that is known here. Refused for any other
    file: a site says what is written, and this program may write what the site could not."""
    name = os.path.basename(path)
    if not (name.startswith(f"{volume}.") and name.endswith(UNFINISHED)):
        raise Refused(f"{path} is no file that an import of {group}/{volume} fills", subject=path)
    return os.path.join(directory, SEEDS, group, name)


def import_seed(session: Session, source: ReadableImage, file: str, kind: str, volume: str) -> ImageInfo:
    """Have the site keep an image for a copy of the volume that is to come."""
    group, name = parse_volume_name(volume)
    directory = session.site.directory
    if not directory:
        raise Refused(
            "a seed is written into the site's data directory, and only its endpoint is known here",
            subject=volume,
            next_step="run it where the site is, and name it by its directory: --site DIR",
        )
    began = monotonic()
    if not 0 < source.size_bytes <= VOLUME_BYTES_MAX:
        raise UsageError(f"{file} has {size_text(source.size_bytes)}: no volume has", subject=file)
    data_bytes = sum(length for _, length in source.data_ranges())
    about = {"size_bytes": source.size_bytes, "data_bytes": data_bytes}
    begun = session.call(SeedBegin(group=group, volume=name, **about))
    with steps(session, volume, source) as step:
        image, digests = (place_of(directory, group, name, path) for path in (begun.image, begun.digests))
        content = write_seed(source, image, digests, step)
    kept = session.call(SeedKeep(group=group, volume=name, token=begun.token), KEEP_S)
    return ImageInfo(
        volume=volume,
        cut=None,
        file=file,
        format=kind,
        size_bytes=kept.size_bytes,
        data_bytes=content.data_bytes,
        copied_bytes=content.data_bytes,
        file_bytes=None,
        digest=content.text(kept.size_bytes),
        took_s=round(monotonic() - began, 3),
    )
