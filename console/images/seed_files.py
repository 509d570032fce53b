"""The two files that a site keeps of a seed, written from an image (protocol.seeds has their form)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from console.images.copying import Step
from console.images.image import ReadableImage, pieces_of, rounded
from console.write_at import write_at
from protocol.content_digest import ContentDigest, data_runs
from protocol.errors import FarshoreError, NotAllowed, Refused
from protocol.seed_limits import SEED_CHUNK_BYTES
from protocol.seeds import LACKING, chunk_digest, chunks_of, digest_at, digests_header


def write_seed(source: ReadableImage, image: str, digests: str, step: Step) -> ContentDigest:
    """Fill two empty files; the digest of what was read. Holes stay holes in both. Not durable."""
    content = ContentDigest()
    ranges = rounded(source.data_ranges(), SEED_CHUNK_BYTES, source.size_bytes)
    with _opened(image) as to_image, _opened(digests) as to_digests:
        os.ftruncate(to_image, source.size_bytes)
        os.ftruncate(to_digests, digest_at(chunks_of(source.size_bytes)))
        write_at(to_digests, digests_header(source.size_bytes), 0)
        for offset, data in source.read(pieces_of(ranges)):
            runs = data_runs(data)
            content.add(offset, data, runs)
            for start, end in runs:
                write_at(to_image, data[start:end], offset + start)
            for at in range(0, len(data), SEED_CHUNK_BYTES):
                digest = chunk_digest(data[at : at + SEED_CHUNK_BYTES])
                if digest != LACKING:
                    write_at(to_digests, digest, digest_at((offset + at) // SEED_CHUNK_BYTES))
            step(offset + len(data))
    return content


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """A file that the daemon made just now: on another machine it is not there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise Refused(
            f"{path} is not on this machine: a seed is imported where the site's daemon runs",
            subject=path,
            next_step="carry the image there, and run this there",
        ) from error
    except PermissionError as error:
        raise NotAllowed(
            f"{path} cannot be written: {error.strerror}",
            subject=path,
            next_step="run this as the user that the site's daemon runs as",
        ) from error
    try:
        yield descriptor
    except OSError as error:
        raise FarshoreError(f"the seed cannot be written: {error.strerror}", subject=path) from error
    finally:
        with suppress(OSError):
            os.close(descriptor)
