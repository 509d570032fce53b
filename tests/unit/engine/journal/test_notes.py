"""What is found by notes is what the plain walk finds: for every time and every place, over clocks that jump,
restarts, branches and truncations."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import methodcaller

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.history.cuts import checked_cut, cut_at_time
from engine.journal import notes as notes_module
from engine.journal.notes import SegmentNotes
from engine.journal.reader import JournalReader
from engine.journal.segments import Segment
from engine.retention.reclaim import POLL_S
from protocol.errors import FarshoreError
from protocol.frames import FramePrefix
from protocol.positions import Cut
from tests.unit.engine.group_rig import SETTINGS, GroupRig, follow, take_other_line

MakeRig = Callable[..., GroupRig]

pytestmark = pytest.mark.usefixtures("tiny_segments")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several notes in a segment."""
    monkeypatch.setattr(notes_module, "NOTE_BYTES", 9000)


class PlainReader(JournalReader):
    """The same without notes: every frame from where the segment begins."""

    def boundary_at_time(self, timeline: int, start: int, end: int, utc_ns: int) -> int | None:
        candidates = [s for s in self._segments.of_timeline(timeline) if s.start < end]
        first = self._last_not_after(candidates, utc_ns)
        boundary = None
        for prefix in self.prefixes(timeline, max(start, first.start) if first else start, end):
            if prefix.utc_ns > utc_ns:
                break
            boundary = prefix.end
        return boundary

    def frame_before(self, timeline: int, position: int) -> FramePrefix | None:
        segment = self._segments.segment_at(timeline, position - 1)
        found = self.prefixes(timeline, segment.start, position) if segment else iter(())
        return next((prefix for prefix in found if prefix.end == position), None)


class Counted(JournalReader):
    """Counts what it looks at."""

    looked = 0

    def prefix_at(self, timeline: int, position: int) -> FramePrefix | None:
        self.looked += 1
        return super().prefix_at(timeline, position)


def found_by(work: Callable[[], object]) -> object:
    """What comes of it, or the refusal."""
    try:
        return work()
    except FarshoreError as error:
        return type(error), error.as_dict()


def check(rig: GroupRig, rng: random.Random) -> None:
    """Every time and place, in an order that leaves notes in any order."""
    group = rig.group
    noted, plain = group.reader, PlainReader(rig.group.segments, rig.group.reader.anchor)
    frames = [
        prefix
        for timeline in group.segments.timelines()
        for segment in group.segments.of_timeline(timeline)
        for prefix in plain.prefixes(timeline, segment.start, segment.start + segment.size)
    ]
    times = {0, 1 << 62, *(prefix.utc_ns + step for prefix in frames for step in (-1, 0, 1))}
    places = {(prefix.timeline, prefix.end + step) for prefix in frames for step in (-1, 0)}
    asked: list[Callable[[], object]] = [
        *(partial(cut_at_time, group, utc_ns) for utc_ns in sorted(times)),
        *(partial(checked_cut, group, Cut(*place)) for place in sorted(places)),
        *(partial(lambda *at: group.reader.frame_before(*at), *place) for place in sorted(places)),
    ]
    rng.shuffle(asked)
    for ask in asked:
        found = found_by(ask)
        group.reader = plain
        try:
            assert found == found_by(ask)
        finally:
            group.reader = noted


class Story:
    """A writer and its follower, which also takes another line than it had."""

    def __init__(self, make_rig: MakeRig, seed: int) -> None:
        self.rng = random.Random(seed)
        self.writer = make_rig(f"writer{seed}", seed=seed + 1)
        self.follower = make_rig(f"follower{seed}", site="par", world=self.writer.world, seed=seed + 2)
        self.volume = self.writer.create("root")

    def step(self) -> None:
        writer, follower, rng = self.writer, self.follower, self.rng
        match rng.randrange(16):
            case 0:
                writer.reopen()
                writer.group.begin_writing()
            case 1:
                follower.reopen()
            case 2:
                writer.clock.jump(rng.choice([-3600.0, -5.0, 7.0, 3600.0]))
            case 3:
                writer.sync()
                writer.checkpoint()
            case 4:
                self.truncate(rng.choice([writer, follower]))
            case 5:
                follow(writer, follower, rng.randrange(40))
            case _:
                for _ in range(rng.randrange(1, 12)):
                    writer.settle(rng.choice([0.0, 0.0, 0.001, 0.5]))
                    contents = [b"x"] * rng.choice([0, 0, 1, 1, 2, 5])
                    if contents:
                        writer.write(self.volume, 0, *contents)
                    else:
                        writer.append([(3, self.volume, 0, 1)])

    def leave_a_branch(self) -> None:
        """Both go on from where the follower is; then it takes the writer's line."""
        follow(self.writer, self.follower)
        copy = self.follower
        copy.group.begin_writing()
        for _ in range(30):
            copy.settle(0.1)
            copy.write(self.volume, 1, b"b")
        copy.sync()
        self.writer.reopen()
        self.writer.group.begin_writing()
        for _ in range(20):
            self.writer.settle(0.1)
            self.writer.write(self.volume, 2, b"c")
        take_other_line(copy, self.writer)

    def truncate(self, rig: GroupRig) -> None:
        follow(self.writer, self.follower)
        rig.sync()
        rig.group.settings = replace(SETTINGS, window_bytes=0)
        rig.settle(2 * POLL_S)
        rig.group.settings = SETTINGS


@pytest.mark.parametrize("seed", range(4))
def test_notes_find_what_the_plain_walk_finds(make_rig: MakeRig, seed: int) -> None:
    story = Story(make_rig, seed)
    for turn in range(4):
        for _ in range(25):
            story.step()
        if turn == 2:
            story.leave_a_branch()
        for rig in (story.writer, story.follower):
            check(rig, story.rng)
            rig.reopen()
            check(rig, story.rng)
        story.writer.group.begin_writing()
    assert len(story.follower.group.timelines.all()) > 3


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9))), st.integers(-1, 10), st.integers(0, 900))
def test_a_note_says_what_lies_before_it(frames: list[tuple[int, int]], utc_ns: int, place: int) -> None:
    """Also of times that go back, which no journal should have."""
    notes, end, latest, known = SegmentNotes(100), 100, 0, [(100, 0)]
    for size, frame_ns in frames:
        end, latest = end + size, max(latest, frame_ns)
        if end % 3 == 0:
            notes.add(end, latest, size)
            known.append((end, latest))
    assert notes.before(place) == max([at for at, _ in known if at < place], default=100)
    ends = [at for at, before_ns in known if before_ns <= utc_ns and at <= place]
    assert notes.not_after(utc_ns, place) == max(ends, default=100)
    notes.cut(place)
    assert notes.reached == max([at for at, _ in known if at <= place], default=100)


def written(rig: GroupRig, count: int) -> list[FramePrefix]:
    volume = rig.create("root")
    found = []
    for _ in range(count):
        rig.settle(0.01)
        found.append(rig.write(volume, 0, b"x").prefix)
    return found


def looked_at(rig: GroupRig, work: Callable[[JournalReader], object]) -> int:
    reader = Counted(rig.group.segments)
    work(reader)
    return reader.looked


def test_what_this_run_wrote_is_found_at_once(make_rig: MakeRig) -> None:
    """Three frames a note: no walk is much longer, wherever it goes."""
    rig = make_rig("wrote")
    for prefix in reversed(written(rig, 60)):
        at, end, utc_ns = (prefix.timeline, prefix.end), rig.end.position, prefix.utc_ns
        assert looked_at(rig, methodcaller("frame_before", *at)) <= 5
        by_time = looked_at(rig, methodcaller("boundary_at_time", prefix.timeline, 0, end, utc_ns))
        assert by_time <= 5 + 5  # and the bisection over segments


def test_after_a_restart_nothing_is_walked_twice(make_rig: MakeRig) -> None:
    rig = make_rig("restarted")
    frames = [each for each in written(rig, 30) if each.position]
    rig.reopen()
    last = frames[-1]
    segment = rig.group.segments.segment_at(last.timeline, last.position)
    assert segment is not None
    within = [each for each in frames if each.position >= segment.start]
    first, again = (looked_at(rig, methodcaller("frame_before", last.timeline, last.end)) for _ in range(2))
    assert first == len(within) > again
    assert again <= 5


def test_a_segment_that_is_cut_has_no_notes_past_its_end() -> None:
    segment = Segment(1, 1000, 100_000)
    for end in (20_000, 40_000, 60_000):
        segment.notes.add(end, end, 4096)
    segment.cut(40_000)
    assert (segment.size, segment.notes.reached) == (39_000, 40_000)
    segment.cut(39_999)
    assert segment.notes.reached == 20_000
