"""Notes of the retention lock survive their rows; a bad row is left out, and counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.retention.lock_notes import BranchNote, LockMark, LockNotes, notes_in
from protocol.positions import POSITION_MAX, Cut

times = st.integers(0, (1 << 63) - 1)
positions = st.integers(0, POSITION_MAX)
timelines = st.integers(1, (1 << 64) - 1)
notes = st.builds(
    LockNotes,
    marks=st.lists(st.builds(LockMark, times, st.builds(Cut, timelines, positions)), max_size=4).map(tuple),
    seen=st.dictionaries(st.tuples(timelines, positions), times, max_size=4),
    branches=st.dictionaries(timelines, st.builds(BranchNote, positions, times), max_size=4),
)


@given(notes)
def test_notes_survive_their_rows(before: LockNotes) -> None:
    assert notes_in("vm1", before.rows("vm1")) == (before, 0)


@given(notes, st.binary(max_size=40), st.binary(max_size=40))
def test_a_bad_row_costs_no_other(before: LockNotes, rest: bytes, value: bytes) -> None:
    rows = before.rows("vm1") | {b"vm1\0?" + rest: value}
    assert notes_in("vm1", rows) == (before, 1)


@given(st.dictionaries(st.binary(max_size=20).map(lambda rest: b"vm1\0" + rest), st.binary(max_size=60)))
def test_any_bytes_are_read(rows: dict[bytes, bytes]) -> None:
    found, bad = notes_in("vm1", rows)
    assert 0 <= bad <= len(rows)
    assert found.newest_ns >= 0
