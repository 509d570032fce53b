"""Events: every record survives its row, and a row that no version of ours wrote is refused."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.events import (
    LAST_DATA_KIND,
    TRIM,
    WRITE,
    ZERO,
    Consistency,
    CopyDeleted,
    CopyPinned,
    EventKind,
    Mark,
    PolicySet,
    Record,
    Revert,
    RewriteBegan,
    RewriteEnded,
    TimelineBegan,
    VolumeCreated,
    VolumeDeleted,
    record_from_row,
)
from protocol.positions import POSITION_MAX, Cut

positions = st.integers(0, POSITION_MAX)
timelines = st.integers(1, (1 << 64) - 1)
cuts = st.builds(Cut, timelines, positions)
names = st.text(max_size=63)

records = st.one_of(
    st.builds(
        TimelineBegan,
        parent=st.integers(0, (1 << 64) - 1),
        fork=positions,
        generation=positions,
        writer=names,
        group=names,
    ),
    st.builds(VolumeCreated, name=names, size_bytes=positions),
    st.builds(VolumeDeleted, volume=positions),
    st.builds(
        Mark,
        copy_id=timelines,
        label=names,
        cut=st.none() | cuts,
        volumes=st.lists(positions, max_size=5).map(tuple),
        consistency=st.sampled_from(Consistency),
        pinned=st.booleans(),
    ),
    st.builds(Revert, volume=positions, cut=cuts),
    st.builds(RewriteBegan, volume=positions, cut=cuts, before=cuts),
    st.builds(RewriteEnded, volume=positions),
    st.builds(CopyPinned, copy_id=timelines, pinned=st.booleans()),
    st.builds(CopyDeleted, copy_id=timelines),
    st.builds(
        PolicySet,
        every_s=positions,
        at_minute=st.integers(-1, 1439),
        keep=st.tuples(*[st.integers(0, 10_000)] * 6),
        window_s=st.integers(-1, 1 << 40),
        window_bytes=positions,
        freeze=names,
    ),
)


@given(records)
def test_a_record_survives_its_row_and_msgpack(record: Record) -> None:
    row = msgpack.unpackb(msgpack.packb(record.to_row()), use_list=False)
    assert record_from_row(row) == record


def test_the_numbers_of_kinds_never_change() -> None:
    """They stand in journals: a number is never used again for something else."""
    assert {kind.name: kind.value for kind in EventKind} == {
        "WRITE": 1,
        "ZERO": 2,
        "TRIM": 3,
        "TIMELINE_BEGAN": 16,
        "VOLUME_CREATED": 17,
        "VOLUME_DELETED": 18,
        "MARK": 20,
        "REVERT": 21,
        "HAND_OVER": 22,
        "STRICT_MODE": 23,
        "COPY_PINNED": 24,
        "COPY_DELETED": 25,
        "POLICY_SET": 26,
        "REWRITE_BEGAN": 27,
        "REWRITE_ENDED": 28,
    }
    assert (EventKind.WRITE, EventKind.ZERO, EventKind.TRIM) == (WRITE, ZERO, TRIM)
    assert max(kind for kind in EventKind if kind <= LAST_DATA_KIND) == TRIM


def test_records_and_data_do_not_share_numbers() -> None:
    for record in (VolumeCreated(name="v", size_bytes=0), Revert(volume=0, cut=Cut(1, 0))):
        kind = record.to_row()[0]
        assert isinstance(kind, int)
        assert kind > LAST_DATA_KIND


@pytest.mark.parametrize(
    "row",
    [
        (19,),
        (22, 1),
        (1 << 40,),
        (WRITE, 1, 2, 3),
        (-17, "v", 1),
        ("17", "v", 1),
        (17,),
        (17, "v"),
        (17, "v", 1, 1),
        (17, 1, "v"),
        (17, "v", 1.0),
        (17, "v", True),
        (17, b"v", 1),
        (17, ("v",), 1),
        (18, None),
        (16, 0, 0, 1, "site", 7),
        (20, 1, "l", 0, 0, (1, "2"), 0, False),
        (20, 1, "l", 0, 0, (1, (2,)), 0, False),
        (20, 1, "l", 0, 0, 1, 0, False),
        (20, 1, "l", 0, 0, (), 0, 0),
        (20, 1, "l", 0, 0, (), 7, False),
        (20, 1, "l", 0, 0, (), True, False),
        (21, 1, 2),
        (24, 1, 1),
        (25, "1"),
        (26, 0, -1, (0, 0, 0, 0, 0), -1, 0, ""),
        (26, 0, -1, (0, 0, 0, 0, 0, -1), -1, 0, ""),
        (26, 0, -1, (0, 0, 0, 0, 0, True), -1, 0, ""),
        (26, 0, -2, (0, 0, 0, 0, 0, 0), -1, 0, ""),
        (26, -1, -1, (0, 0, 0, 0, 0, 0), -1, 0, ""),
    ],
)
def test_a_row_that_nobody_of_ours_wrote_is_refused(row: tuple[object, ...]) -> None:
    """Never skipped: who does not know an event cannot know what the volume holds."""
    with pytest.raises(RemoteProtocolError):
        record_from_row(row)
