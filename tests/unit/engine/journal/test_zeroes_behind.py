"""How much is torn of a segment that ends with what was preallocated."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.engine.journal.test_recovery import Journal

PIECE_BYTES = 64 << 10  # in which recovery looks for what is no zero


@pytest.mark.parametrize("zeroes", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, (1 << 20) + 77])
@pytest.mark.parametrize(
    "rubbish", [b"\x01", b"\x01" + bytes(PIECE_BYTES) + b"\x02", bytes(100) + b"\xff" * PIECE_BYTES]
)
def test_what_is_torn_ends_with_its_last_byte(directory: Path, rubbish: bytes, zeroes: int) -> None:
    journal = Journal(directory)
    content = journal.lay([journal.frame()], tail=0)
    journal.store(0, content + rubbish + bytes(zeroes))
    end = journal.walk()
    assert (end.position, end.torn_bytes) == (len(content), len(rubbish))
    journal.cut(end.position)
    assert journal.walk().torn_bytes == 0
    assert journal.segments is not None
    journal.segments.close()
