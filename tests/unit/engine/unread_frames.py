"""Frames as other versions of this program journaled them: whole, and refused by this one.

They are written past the checks, as the next frame of a group's journal, with right checksums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crc32c import crc32c
from xxhash import xxh3_128_digest

from engine.group.group import Group
from protocol.events import WRITE, ZERO, EventKind, Row
from protocol.frames import DIGESTED_BYTES, PREFIX_BYTES, Frame, encode_frame, parse_prefix
from protocol.limits import BLOCK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """`rows` of a frame and its `payload`; with `garbage`, its table is no table. What is taken of it: the
    blocks of `taken` by number. `touches`: whether it may have changed the volume."""

    rows: tuple[Row, ...]
    payload: bytes = b""
    garbage: bool = False
    taken: tuple[tuple[int, str], ...] = ()
    touches: bool


def unread_kinds(volume: int) -> dict[str, Unread]:
    """One of each sort, in a group whose volume has that id."""
    block = b"N" * BLOCK_BYTES
    return {
        "a write of no blocks (C1)": Unread(rows=((WRITE, volume, 0, 0),), touches=False),
        "a write of no blocks between others (C1)": Unread(
            rows=((WRITE, volume, 3, 1), (WRITE, volume, 0, 0), (ZERO, volume, 0, 1)),
            payload=block,
            taken=((3, "N"), (0, ".")),
            touches=False,
        ),
        "a volume of size -4096 (C7)": Unread(
            rows=((EventKind.VOLUME_CREATED, "huge", -4096),), touches=False
        ),
        "a negative number of blocks": Unread(rows=((ZERO, volume, 4, -1),), touches=True),
        "a revert to a cut that is none": Unread(rows=((EventKind.REVERT, volume, 7),), touches=True),
        "a kind of event from later on": Unread(rows=((99, volume, "text"),), touches=True),
        "no table at all": Unread(rows=((ZERO, volume, 0, 1),), garbage=True, touches=True),
    }


UNREAD_NAMES = list(unread_kinds(0))


def unread_frame(group: Group, unread: Unread) -> Frame:
    """The frame that would come next in the group's journal."""
    frame = frame_after(group, unread.rows, unread.payload)
    return signed(frame, group.head.digest) if unread.garbage else frame


def frame_after(group: Group, rows: Sequence[Row], payload: bytes = b"") -> Frame:
    """Whatever rows, as the frame that comes next."""
    return encode_frame(
        timeline=group.head.timeline,
        position=group.writer.written,
        utc_ns=group.next_utc_ns(),
        durable=0,
        previous_digest=group.head.digest,
        rows=rows,
        payload=[payload] if payload else [],
        payload_bytes=len(payload),
    )


def signed(frame: Frame, previous: bytes) -> Frame:
    """The frame with its table overwritten and its checksums right again."""
    raw = bytearray(frame.raw)
    raw[PREFIX_BYTES + 1 : PREFIX_BYTES + 3] = b"\xc1\xc1"
    body = bytes(raw[PREFIX_BYTES:])
    raw[48:52] = crc32c(body).to_bytes(4)
    raw[DIGESTED_BYTES:PREFIX_BYTES] = xxh3_128_digest(
        previous + bytes(raw[:DIGESTED_BYTES]) + xxh3_128_digest(body)
    )
    return Frame(parse_prefix(raw), bytes(raw))


def journal_unread(group: Group, unread: Unread) -> Frame:
    """Put it into the group's journal behind the back of every check. The group itself must be opened again:
    it goes on as if it had not been there but for its place in the chain."""
    frame = unread_frame(group, unread)
    group.writer.append(frame)
    group.head.digest, group.head.utc_ns = frame.prefix.digest, frame.prefix.utc_ns
    return frame
