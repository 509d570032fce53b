"""Walking a journal from any boundary: every frame checked, large and small, over files and timelines."""

from __future__ import annotations

import pytest

from engine.journal import reader as reader_module
from engine.journal.reader import BadFrame
from protocol.errors import Corruption, NotFound
from protocol.frames import NO_DIGEST, FramePrefix
from protocol.positions import Cut
from tests.unit.engine.group_rig import GroupRig


class Long:
    """A hundred frames of one to nine blocks, over several segments and two timelines."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.volume = rig.create("root")
        self.prefixes: list[FramePrefix] = []
        for at in range(100):
            if at == 50:
                rig.reopen()
            rig.settle(0.01)
            contents = [b"x"] * (1 + at % 9)
            self.prefixes.append(rig.write(self.volume, 0, *contents).prefix)
        self.reader = rig.group.reader

    def walk(self, first: int, last: int, digest: bytes | None = None) -> list[FramePrefix]:
        """Frames from the `first` up to the end of the `last`, of one timeline."""
        start, end = self.prefixes[first], self.prefixes[last]
        found = self.reader.frames(start.timeline, start.position, end.end, digest)
        return [frame.prefix for frame in found]


@pytest.fixture
def long(rig: GroupRig) -> Long:
    return Long(rig)


@pytest.mark.parametrize("window", [200, 5000, 1 << 20])
def test_any_stretch_is_walked_in_order(long: Long, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part of a frame ends a window."""
    monkeypatch.setattr(reader_module, "WINDOW_BYTES", window)
    for first, last in ((0, 49), (50, 99), (3, 3), (17, 31), (60, 93)):
        assert long.walk(first, last) == long.prefixes[first : last + 1]
        before = long.prefixes[first - 1].digest if first % 50 else None
        assert long.walk(first, last, before) == long.prefixes[first : last + 1]


def test_a_walk_ends_where_nothing_valid_stands(long: Long) -> None:
    last = long.prefixes[-1]
    with pytest.raises(BadFrame) as caught:
        list(long.reader.frames(last.timeline, last.position, last.end + 1, None))
    assert (caught.value.timeline, caught.value.position) == (last.timeline, last.end)


def test_a_walk_from_between_boundaries_finds_nothing(long: Long) -> None:
    for shift in (-1, 1, 100):
        with pytest.raises(BadFrame):
            list(
                long.reader.frames(
                    long.prefixes[5].timeline, long.prefixes[5].position + shift, 1 << 40, None
                )
            )


def test_a_digest_that_does_not_lead_here_is_refused_at_once(long: Long) -> None:
    with pytest.raises(BadFrame, match="digest"):
        long.walk(5, 9, NO_DIGEST)


def test_without_a_digest_the_first_frames_body_is_still_checked(long: Long) -> None:
    path = long.rig.segment_files()[0]
    damaged = bytearray(path.read_bytes())
    damaged[long.prefixes[1].end - 1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(BadFrame, match="CRC"):
        long.walk(1, 3)


def test_the_digest_at_every_boundary_is_that_of_the_frame_before(long: Long) -> None:
    timelines = long.rig.group.timelines
    for prefix in long.prefixes:
        assert long.reader.digest_at(timelines, prefix.timeline, prefix.end) == prefix.digest
    fork = timelines.get(long.prefixes[-1].timeline).fork
    assert long.reader.digest_at(timelines, long.prefixes[-1].timeline, fork) == long.prefixes[49].digest
    assert long.reader.digest_at(timelines, long.prefixes[0].timeline, 0) == NO_DIGEST


def test_there_is_no_digest_between_boundaries(long: Long) -> None:
    prefix = long.prefixes[20]
    for position in (prefix.position + 1, prefix.end - 1):
        with pytest.raises(NotFound) as caught:
            long.reader.digest_at(long.rig.group.timelines, prefix.timeline, position)
        assert caught.value.position == str(Cut(prefix.timeline, position))


def test_prefixes_are_found_without_reading_bodies(long: Long) -> None:
    first, last = long.prefixes[55], long.prefixes[80]
    assert list(long.reader.prefixes(first.timeline, first.position, last.end)) == long.prefixes[55:81]
    assert long.reader.prefix_at(first.timeline, first.position + 8) is None
    assert long.reader.prefix_at(0x99, 0) is None


def test_a_time_is_found_by_bisection(long: Long) -> None:
    start = long.prefixes[50]
    for prefix in long.prefixes[50:]:
        for utc_ns in (prefix.utc_ns, prefix.utc_ns + 1):
            found = long.reader.boundary_at_time(prefix.timeline, start.position, 1 << 40, utc_ns)
            assert found == prefix.end
    assert long.reader.boundary_at_time(start.timeline, start.position, 1 << 40, start.utc_ns - 1) is None


def test_digests_are_compared_not_guessed(long: Long) -> None:
    digest = long.prefixes[0].digest
    reader_module.require_digest(digest, digest, 1, 2)
    for other in (b"", digest[:-1], long.prefixes[1].digest):
        with pytest.raises(Corruption):
            reader_module.require_digest(other, digest, 1, 2)
