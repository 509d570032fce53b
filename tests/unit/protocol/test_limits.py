"""Bounds hold each other: a bad edit of one must fail at import, not at a customer's."""

from __future__ import annotations

import pytest

from protocol import limits
from protocol.events import WRITE
from protocol.frames import NO_DIGEST, encode_frame, parse_prefix


def test_they_hold_now() -> None:
    limits.check_limits()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FRAME_PAYLOAD_BYTES_MAX", limits.FRAME_PAYLOAD_BYTES_MAX + 512),
        ("SEGMENT_BYTES", limits.FRAME_BYTES_MAX),
        ("SEGMENT_BYTES_MIN", 3 << 20),
        ("SHIP_IN_FLIGHT_BYTES_MAX", 2 * limits.FRAME_BYTES_MAX - 1),
        ("HEARTBEAT_TIMEOUT_S", 2.9),
        ("MEMTABLE_VERSIONS_HARD", 2 * limits.MEMTABLE_VERSIONS_SOFT - 1),
    ],
)
def test_a_bad_edit_is_found(monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    monkeypatch.setattr(limits, name, value)
    with pytest.raises(AssertionError):
        limits.check_limits()


def test_a_frame_full_in_every_way_is_within_its_limits() -> None:
    """As many rows as there may be, the widest numbers, and as much payload as fits: still one frame."""
    blocks = limits.FRAME_PAYLOAD_BYTES_MAX // limits.BLOCK_BYTES
    volume = (1 << 62) - 1
    counts = [1] * (limits.FRAME_EVENTS_MAX - 1)
    wide = [(2, volume, limits.BLOCKS_MAX - 1, 1) for _ in counts]
    frame = encode_frame(
        timeline=(1 << 64) - 1,
        position=volume - limits.FRAME_BYTES_MAX,
        utc_ns=volume,
        durable=volume - limits.FRAME_BYTES_MAX,
        previous_digest=NO_DIGEST,
        rows=[(WRITE, volume, limits.BLOCKS_MAX - blocks, blocks), *wide],
        payload=[bytes(limits.FRAME_PAYLOAD_BYTES_MAX)],
        payload_bytes=limits.FRAME_PAYLOAD_BYTES_MAX,
    )
    assert parse_prefix(frame.raw) == frame.prefix
