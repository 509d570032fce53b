"""A frame without the bytes that the other side has: holes cut into it, and filled again.

Holes are (offset in the frame, bytes, number of a seed, offset there), ascending and apart. What is left is
the frame without them, end to end. Whoever fills them has the very bytes back, or finds out by the frame's
CRC and digest that those were others.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protocol.base_messages import Hole
from protocol.errors import RemoteProtocolError
from protocol.seed_limits import SEED_CHUNK_BYTES

Buffer = bytes | bytearray | memoryview
Fetch = Callable[[int, int], bytes]
"""The bytes of one chunk: (number of the seed, chunk) → `SEED_CHUNK_BYTES`."""


def cut_out(frame: Buffer, holes: Sequence[Hole]) -> bytes:
    """What is left of a frame."""
    view, at, left = memoryview(frame), 0, []
    for offset, length, _, _ in holes:
        left.append(view[at:offset])
        at = offset + length
    left.append(view[at:])
    return b"".join(left)


def check_holes(holes: Sequence[Hole], frame_bytes: int, chunks: Sequence[int]) -> None:
    """That holes lie within the frame, and what they name in seeds of so many chunks each.
    RemoteProtocolError."""
    end = 0
    for offset, length, seed, at in holes:
        if offset < end:
            raise RemoteProtocolError(f"holes of a frame overlap, or are out of order, at {offset}")
        end = offset + length
        if seed >= len(chunks):
            raise RemoteProtocolError(f"a hole of a frame names seed {seed} of {len(chunks)}")
        if at + length > chunks[seed] * SEED_CHUNK_BYTES:
            raise RemoteProtocolError(f"a hole of a frame reaches past the end of seed {seed}")
    if end > frame_bytes:
        raise RemoteProtocolError("a hole reaches past the end of its frame")


def put_back(left: Buffer, holes: Sequence[Hole], frame_bytes: int, fetch: Fetch) -> bytearray:
    """The frame. Holes are as `check_holes` wants them. RemoteProtocolError if what is left is not as long as
    it must be; what `fetch` raises."""
    if len(left) + sum(length for _, length, _, _ in holes) != frame_bytes:
        raise RemoteProtocolError("a frame and its holes are not as long as was said")
    view, taken, frame = memoryview(left), 0, bytearray()
    for offset, length, seed, at in holes:
        more = offset - len(frame)
        frame += view[taken : taken + more]
        taken += more
        for place, piece in _pieces(at, length):
            chunk, skip = divmod(place, SEED_CHUNK_BYTES)
            frame += memoryview(fetch(seed, chunk))[skip : skip + piece]
    frame += view[taken:]
    return frame


def _pieces(at: int, length: int) -> list[tuple[int, int]]:
    """A range cut where chunks begin: (offset, bytes)."""
    pieces, end = [], at + length
    while at < end:
        stop = min(end, (at // SEED_CHUNK_BYTES + 1) * SEED_CHUNK_BYTES)
        pieces.append((at, stop - at))
        at = stop
    return pieces
