"""Bounds of seeds (protocol.seeds), beside those in protocol.limits, which has no room for them."""

from __future__ import annotations

from protocol.limits import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    FRAME_BYTES_MAX,
    MESSAGE_HEADER_BYTES_MAX,
    NAME_CHARS_MAX,
    VOLUME_BYTES_MAX,
    VOLUMES_PER_GROUP_MAX,
)

# There is a digest for each chunk, and so many are told at a time: those of 1 GiB, in a message of 256 KiB.
SEED_CHUNK_BYTES = 64 << 10
SEED_CHUNKS_MAX = VOLUME_BYTES_MAX // SEED_CHUNK_BYTES
SEED_DIGESTS_TOLD_MAX = 16_384
# Places in one frame whose bytes are in a seed.
SEED_HOLES_MAX = FRAME_BYTES_MAX // BLOCK_BYTES
# Chunks that the source of a base reads, to judge a frame, before hosts have their turn.
SEED_READS_A_STEP = 16
# A seed's file is removed piece by piece: a file system may take long for all of it, and the loop would wait.
SEED_REMOVED_BYTES = 1 << 30


def check_limits() -> None:
    """As in protocol.limits; called at import."""
    if SEED_CHUNK_BYTES % BLOCK_BYTES or VOLUME_BYTES_MAX % SEED_CHUNK_BYTES:
        raise AssertionError("a chunk of a seed must be whole blocks, and the largest volume whole chunks")
    if SEED_DIGESTS_TOLD_MAX * DIGEST_BYTES > FRAME_BYTES_MAX:
        raise AssertionError("digests that are told must fit into a message")
    if SEED_HOLES_MAX * 24 > MESSAGE_HEADER_BYTES_MAX:
        raise AssertionError("the holes of a frame must fit into a header")
    if VOLUMES_PER_GROUP_MAX * (NAME_CHARS_MAX + 16) > MESSAGE_HEADER_BYTES_MAX:
        raise AssertionError("the seeds of a group must fit into a header")


check_limits()
