"""What cannot be read back is never written: not by the writer, not by a follower."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from engine.group.clone_rows import CloneRow
from engine.group.frame_checks import Unwritable, check_generation
from engine.history.volume_bounds import check_base_volumes
from protocol.base_messages import RecordRow
from protocol.errors import RemoteProtocolError
from protocol.events import (
    TRIM,
    WRITE,
    ZERO,
    Record,
    Row,
    TimelineBegan,
    VolumeCreated,
    VolumeDeleted,
)
from protocol.frames import Frame, FrameError, encode_frame
from protocol.limits import (
    BLOCK_BYTES,
    GENERATION_MAX,
    GENERATIONS_AHEAD_MAX,
    VOLUMES_EVER_MAX,
    VOLUMES_PER_GROUP_MAX,
)
from tests.unit.engine.group_rig import GroupRig, filled, follow

MakeRig = Callable[..., GroupRig]
BLOCKS = 8


@pytest.fixture
def sites(make_rig: MakeRig) -> tuple[GroupRig, GroupRig, int]:
    """A writer, a follower that holds the same, and the id of their volume of eight blocks."""
    one = make_rig("one")
    other = make_rig("other", site="par", world=one.world, seed=2)
    volume = one.create("root", BLOCKS)
    one.write(volume, 0, b"a")
    follow(one, other)
    return one, other, volume


def bad_rows(volume: int) -> dict[str, list[Row]]:
    """Data rows that no frame may hold, by what is wrong with them."""
    return {
        "a write of no blocks (C1)": [(WRITE, volume, 0, 0)],
        "no blocks after a good row (C1)": [(ZERO, volume, 0, 1), (WRITE, volume, 0, 0)],
        "a negative number of blocks": [(ZERO, volume, 4, -1)],
        "a negative first block": [(ZERO, volume, -1, 2)],
        "one block too far": [(ZERO, volume, BLOCKS, 1)],
        "an end past the volume": [(TRIM, volume, BLOCKS - 1, 2)],
        "a volume that is not there": [(ZERO, volume + 1, 0, 1)],
        "a second row past the volume": [(ZERO, volume, 0, 1), (ZERO, volume, 0, BLOCKS + 1)],
    }


NAMES = list(bad_rows(0))


def crafted(rig: GroupRig, rows: Sequence[Row], payload: bytes = b"", **fields: int) -> Frame:
    """A frame with right checksums that continues what a site has."""
    group = rig.group
    usual = {
        "timeline": group.head.timeline,
        "position": group.writer.written,
        "utc_ns": group.head.utc_ns,
        "durable": 0,
    }
    return encode_frame(
        **(usual | fields),
        previous_digest=group.head.digest,
        rows=rows,
        payload=[payload],
        payload_bytes=len(payload),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_writer_does_not_journal_what_it_could_not_read_c1(
    sites: tuple[GroupRig, GroupRig, int], name: str
) -> None:
    """C1: a host's empty write was journaled as a row of no blocks, which every reader of ours refuses."""
    one, other, volume = sites
    before = one.end
    with pytest.raises(Unwritable):
        one.group.append(bad_rows(volume)[name], (), 0)
    assert one.end == before
    one.write(volume, 1, b"b")
    one.reopen()
    assert one.letters("root") == "ab" + "." * (BLOCKS - 2)
    assert follow(one, other) == 1
    assert other.letters("root") == one.letters("root")


@pytest.mark.parametrize("payload_blocks", [0, 2])
def test_rows_and_payload_must_agree(sites: tuple[GroupRig, GroupRig, int], payload_blocks: int) -> None:
    one, _, volume = sites
    payload = [filled(b"x")] * payload_blocks
    with pytest.raises(Unwritable):
        one.group.append([(WRITE, volume, 0, 1)], payload, payload_blocks * BLOCK_BYTES)


@pytest.mark.parametrize(
    "record",
    [
        VolumeCreated(name="log", size_bytes=-4096),
        VolumeCreated(name="../log", size_bytes=4096),
        VolumeDeleted(volume=-1),
    ],
    ids=repr,
)
def test_a_writer_does_not_journal_a_record_that_is_none_c7(
    sites: tuple[GroupRig, GroupRig, int], record: Record
) -> None:
    one, *_ = sites
    before = one.end
    with pytest.raises(Unwritable):
        one.group.append_records([record])
    with pytest.raises(Unwritable):
        one.group.append_records([])
    assert one.end == before


@pytest.mark.parametrize("name", NAMES)
def test_a_follower_refuses_data_outside_its_volumes(
    sites: tuple[GroupRig, GroupRig, int], name: str
) -> None:
    _, other, volume = sites
    before, files = other.end, other.files()
    frame = crafted(other, bad_rows(volume)[name])
    with pytest.raises((RemoteProtocolError, FrameError)):
        other.group.follow(frame.prefix, frame.raw)
    assert (other.end, other.files()) == (before, files)


@pytest.mark.parametrize("size_bytes", [-4096, -1, 0, (1 << 50) + 1, (1 << 50) + 4096, 1 << 63])
def test_a_follower_refuses_a_volume_of_no_possible_size_c7(
    sites: tuple[GroupRig, GroupRig, int], size_bytes: int
) -> None:
    """C7: accepted and journaled, it stopped the daemon when the export was opened, at every start."""
    _, other, _ = sites
    before, files = other.end, other.files()
    frame = crafted(other, [(17, "huge", size_bytes)])
    with pytest.raises(RemoteProtocolError):
        other.group.follow(frame.prefix, frame.raw)
    assert (other.end, other.files()) == (before, files)
    other.reopen()
    assert other.end == before


def created(first: int, count: int) -> list[Row]:
    return [(17, f"v{number}", BLOCK_BYTES) for number in range(first, first + count)]


def take(rig: GroupRig, rows: list[Row], history: bool = False) -> None:
    frame = crafted(rig, rows)
    rig.group.follow(frame.prefix, frame.raw, history=history)


@pytest.mark.parametrize("history", [False, True])
def test_a_follower_refuses_more_volumes_than_a_group_may_have(
    sites: tuple[GroupRig, GroupRig, int], history: bool
) -> None:
    _, other, _ = sites
    take(other, created(0, VOLUMES_PER_GROUP_MAX - 1))
    full, files = other.end, other.files()
    with pytest.raises(RemoteProtocolError, match="VOLUMES_PER_GROUP_MAX"):
        take(other, created(9000, 1), history)
    assert (other.end, other.files()) == (full, files)
    # One that is deleted leaves room for another one.
    volumes = other.group.volumes.at(other.group.spans())
    take(other, [VolumeDeleted(volume=volumes["v0"].id).to_row()])
    take(other, created(9000, 1), history)
    began = TimelineBegan(
        parent=full.timeline, fork=other.end.position, generation=9, writer="rom", group="g", sealed=True
    )
    with pytest.raises(RemoteProtocolError, match="VOLUMES_PER_GROUP_MAX"):
        take(other, [began.to_row(), *created(9001, 1)], history)


def test_a_follower_refuses_more_volumes_than_a_group_may_ever_make(
    sites: tuple[GroupRig, GroupRig, int],
) -> None:
    """Each is looked at whenever volumes are listed, deleted or not."""
    _, other, _ = sites
    made = other.group.volumes.ever
    while made < VOLUMES_EVER_MAX:
        for volume in list(other.group.volumes.at(other.group.spans()).values()):
            other.group.volumes.deleted(
                other.group.head.timeline, other.end.position - 1, VolumeDeleted(volume=volume.id)
            )
        count = min(VOLUMES_PER_GROUP_MAX, VOLUMES_EVER_MAX - made)
        take(other, created(made, count))
        made += count
    for volume in list(other.group.volumes.at(other.group.spans()).values()):
        other.group.volumes.deleted(
            other.group.head.timeline, other.end.position - 1, VolumeDeleted(volume=volume.id)
        )
    with pytest.raises(RemoteProtocolError, match="VOLUMES_EVER_MAX"):
        take(other, created(made, 1))


def test_a_base_with_more_volumes_than_a_group_may_ever_make_is_refused(
    sites: tuple[GroupRig, GroupRig, int],
) -> None:
    volumes = sites[1].group.volumes
    records = [
        RecordRow(timeline=4097, position=at, frame_position=at, utc_ns=1, row=(17, "v", BLOCK_BYTES))
        for at in range(1 << 20, (1 << 20) + VOLUMES_EVER_MAX)
    ]
    check_base_volumes(volumes, records[1:])
    with pytest.raises(RemoteProtocolError, match="VOLUMES_EVER_MAX"):
        check_base_volumes(volumes, records)


def test_sizes_are_those_of_the_lineage_that_is_followed(sites: tuple[GroupRig, GroupRig, int]) -> None:
    """A volume made on a branch is not one of the head's, and a new one counts at once."""
    one, other, volume = sites
    fork = one.end
    late = one.create("log", 2)
    follow(one, other)
    one.append([(ZERO, late, 1, 1)])
    assert follow(one, other) == 1
    began = TimelineBegan(
        parent=fork.timeline, fork=fork.position, generation=9, writer="rom", group="g", sealed=True
    )
    digest = other.group.reader.digest_at(other.group.timelines, fork.timeline, fork.position)
    frame = encode_frame(
        timeline=77,
        position=fork.position,
        utc_ns=other.group.head.utc_ns,
        durable=fork.position,
        previous_digest=digest,
        rows=[began.to_row()],
        payload=(),
        payload_bytes=0,
    )
    other.group.follow(frame.prefix, frame.raw, leave=True)
    assert other.end.timeline == 77
    for rows, taken in (([(ZERO, late, 1, 1)], False), ([(ZERO, volume, 1, 1)], True)):
        frame = crafted(other, rows)
        if taken:
            other.group.follow(frame.prefix, frame.raw)
        else:
            with pytest.raises(RemoteProtocolError):
                other.group.follow(frame.prefix, frame.raw)


def test_a_deleted_volume_may_still_be_named(sites: tuple[GroupRig, GroupRig, int]) -> None:
    """A journal of the version before may hold a write that was under way."""
    one, other, volume = sites
    one.group.append_records([VolumeDeleted(volume=volume)])
    follow(one, other)
    frame = crafted(other, [(ZERO, volume, 0, 1)])
    other.group.follow(frame.prefix, frame.raw)


def test_a_clone_does_not_write_past_its_volumes(sites: tuple[GroupRig, GroupRig, int]) -> None:
    one, _, volume = sites
    one.sync()
    row = CloneRow(
        name="lab", group="g", cut=one.end, timelines=(), volumes=(volume,), created_utc_ns=1,
        temporary=False, purpose="",
    )  # fmt: skip
    clone = one.group.clones.create(row)
    clone.append([(ZERO, volume, BLOCKS - 1, 1)], (), 0)
    for rows in ([(ZERO, volume, BLOCKS, 1)], [(WRITE, volume, 0, 0)], [(ZERO, volume + 1, 0, 1)]):
        with pytest.raises(Unwritable):
            clone.append(rows, (), 0)


@pytest.mark.parametrize("generation", [GENERATIONS_AHEAD_MAX + 2, GENERATION_MAX])
def test_a_timeline_that_nobody_could_outrank_is_not_followed_c5(
    sites: tuple[GroupRig, GroupRig, int], generation: int
) -> None:
    _, other, _ = sites
    end = other.end
    began = TimelineBegan(
        parent=end.timeline, fork=end.position, generation=generation, writer="lon", group="g", sealed=True
    )
    frame = crafted(other, [began.to_row()], timeline=77)
    with pytest.raises(RemoteProtocolError):
        other.group.follow(frame.prefix, frame.raw)
    assert other.end == end


def test_generations_may_be_far_ahead_but_not_at_their_end_c5() -> None:
    check_generation(GENERATIONS_AHEAD_MAX, 0)
    check_generation(1, GENERATION_MAX)
    for claimed in (GENERATIONS_AHEAD_MAX + 1, GENERATION_MAX):
        with pytest.raises(RemoteProtocolError):
            check_generation(claimed, 0)
