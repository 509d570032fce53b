"""Events: every record survives its row, and a row that no version of ours wrote is refused."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.errors import RemoteProtocolError
from protocol.events import (
    LAST_DATA_KIND,
    NO_POLICY,
    TRIM,
    WRITE,
    ZERO,
    Consistency,
    CopyDeleted,
    CopyLocked,
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
    VolumeRenamed,
    VolumeResized,
    record_from_row,
)
from protocol.limits import BLOCK_BYTES, GENERATION_MAX, LOCK_S_MAX, SCHEDULE_SPAN_S_MAX, VOLUME_BYTES_MAX
from protocol.positions import POSITION_MAX, Cut

positions = st.integers(0, POSITION_MAX)
timelines = st.integers(1, (1 << 64) - 1)
cuts = st.builds(Cut, timelines, positions)
names = st.from_regex(r"[a-z][a-z0-9._-]{0,62}", fullmatch=True)
sites = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
no_names = st.just("") | names

records = st.one_of(
    st.builds(
        TimelineBegan,
        parent=st.integers(0, (1 << 64) - 1),
        fork=positions,
        generation=st.integers(1, GENERATION_MAX),
        writer=sites,
        group=names,
        sealed=st.booleans(),
    ),
    st.builds(
        VolumeCreated,
        name=names,
        size_bytes=st.integers(1, VOLUME_BYTES_MAX // BLOCK_BYTES).map(lambda blocks: blocks * BLOCK_BYTES),
    ),
    st.builds(VolumeDeleted, volume=positions),
    st.builds(VolumeRenamed, volume=positions, name=names),
    st.builds(VolumeResized, volume=positions, size_bytes=st.integers(1, 1 << 38).map(lambda n: n * 4096)),
    st.builds(
        Mark,
        copy_id=timelines,
        label=no_names,
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
    st.builds(CopyLocked, copy_id=timelines, lock_s=st.integers(1, LOCK_S_MAX)),
    st.builds(
        PolicySet,
        every_s=st.integers(0, SCHEDULE_SPAN_S_MAX),
        at_minute=st.integers(-1, 1439),
        keep=st.tuples(*[st.integers(0, 10_000)] * 6),
        window_s=st.integers(-1, SCHEDULE_SPAN_S_MAX),
        window_bytes=positions,
        freeze=no_names,
    ),
    st.builds(
        replace,
        st.just(NO_POLICY),
        cron=st.sampled_from(["30 2 * * *", "*/5 0-6,22 L JAN-MAR MON#1"]),
        zone=st.sampled_from(["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+3"]),
    ),
)


@given(records)
def test_a_record_survives_its_row_and_msgpack(record: Record) -> None:
    row = msgpack.unpackb(msgpack.packb(record.to_row()), use_list=False)
    assert record_from_row(row) == record


def test_a_policy_without_a_cron_line_is_written_as_it_always_was() -> None:
    """Earlier versions refuse a row that is longer."""
    assert NO_POLICY.to_row() == (26, 0, -1, (0, 0, 0, 0, 0, 0), -1, 0, "")
    assert msgpack.unpackb(NO_POLICY.encode(), use_list=False) == NO_POLICY.to_row()
    policy = replace(NO_POLICY, cron="0 0 * * *", zone="UTC")
    assert policy.to_row() == (*NO_POLICY.to_row(), "0 0 * * *", "UTC")
    for more in (
        ("0 0 * *", "UTC"),
        ("0 0 * * *\n", "UTC"),
        ("0 0 * * *", "../x"),
        ("0 0 * * *", "UTC", "../x"),
        ("0 0 * * *", "UTC", "UTC", ""),
    ):
        with pytest.raises(RemoteProtocolError):
            record_from_row((*NO_POLICY.to_row(), *more))


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
        "COPY_LOCKED": 29,
        "VOLUME_RESIZED": 30,
        "VOLUME_RENAMED": 31,
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
        (22, "../x"),
        (22, "s" * 64),
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
        (29, 1, 0),
        (29, 1, LOCK_S_MAX + 1),
        (29, 1, 1.0),
        (29, 1),
        (26, 0, -1, (0, 0, 0, 0, 0), -1, 0, ""),
        (26, 0, -1, (0, 0, 0, 0, 0, -1), -1, 0, ""),
        (26, 0, -1, (0, 0, 0, 0, 0, True), -1, 0, ""),
        (26, 0, -2, (0, 0, 0, 0, 0, 0), -1, 0, ""),
        (26, -1, -1, (0, 0, 0, 0, 0, 0), -1, 0, ""),
        (26, 0, 1440, (0, 0, 0, 0, 0, 0), -1, 0, ""),
        (26, 0, -1, (0, 0, 0, 0, 0, 10_001), -1, 0, ""),
        (26, 0, -1, (0, 0, 0, 0, 0, 0), SCHEDULE_SPAN_S_MAX + 1, 0, ""),
        (26, 0, -1, (0, 0, 0, 0, 0, 0), -1, 0, "x\n"),
        (20, 1, "no\x1b[2J", 0, 0, (), 0, False),
        (20, 1, "", 0, 5, (), 0, False),
        (20, 1, "", 0, 0, tuple(range(257)), 0, False),
        (20, -1, "", 0, 0, (), 0, False),
        (21, 1, 0, 5),
        (21, -1, 1, 5),
        (21, 1, 1, -5),
        (21, 1, 1, POSITION_MAX + 1),
        (16, 0, 0, 0, "site", "vm1", True),
        (16, 0, 0, GENERATION_MAX + 1, "site", "vm1", True),
        (16, 0, 0, (1 << 64) - 1, "site", "vm1", True),
        (16, 0, 0, 1, "site", "../../../x", True),
        (16, 0, 0, 1, "site", "/any/dir", True),
        (16, 0, 0, 1, "site", "vm1/.", True),
        (16, 0, 0, 1, "a/b", "vm1", True),
        (16, -1, 0, 1, "site", "vm1", True),
        (21, 1 << 70, 1, 5),
    ],
)
def test_a_row_that_nobody_of_ours_wrote_is_refused(row: tuple[object, ...]) -> None:
    """Never skipped: who does not know an event cannot know what the volume holds."""
    with pytest.raises(RemoteProtocolError):
        record_from_row(row)


@pytest.mark.parametrize(
    "size_bytes", [-4096, -1, 0, VOLUME_BYTES_MAX + 1, VOLUME_BYTES_MAX + 4096, 1 << 63, (1 << 64) - 4096]
)
def test_a_volume_of_no_possible_size_is_refused_c7(size_bytes: int) -> None:
    """C7: accepted, it stopped the daemon once its export was opened."""
    with pytest.raises(RemoteProtocolError):
        record_from_row((17, "v", size_bytes))
    with pytest.raises(RemoteProtocolError):
        record_from_row(VolumeCreated(name="v", size_bytes=size_bytes).to_row())


def test_the_generation_can_always_be_outranked_c5() -> None:
    """C5: what is stored has 64 bits; a takeover adds at most two to the highest generation known."""
    assert GENERATION_MAX + 2 < 1 << 63
