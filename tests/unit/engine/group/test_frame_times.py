"""No time that a peer or a clock says takes the room that this site's own frames need."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.group.frame_times import FrameTimes
from protocol.errors import RemoteProtocolError
from protocol.events import ZERO
from protocol.limits import FRAME_UTC_NS_MAX, UTC_NS_MAX
from tests.sim.world import NS, SimClock, SimWorld
from tests.unit.engine.group.test_frame_checks import crafted
from tests.unit.engine.group_rig import GroupRig, follow

MakeRig = Callable[..., GroupRig]
YEAR_S = 366 * 86_400


def test_a_promise_holds_wherever_the_clock_jumps() -> None:
    clock = SimClock(SimWorld(1))
    times, last_ns = FrameTimes(clock), 0
    for years in (0, -30, 50, -60, 1000, 1, -2000):
        clock.jump(years * YEAR_S)
        promised = times.promise_ns(last_ns)
        assert promised >= last_ns - 1
        last_ns = times.next_ns(last_ns)
        assert promised < last_ns <= FRAME_UTC_NS_MAX


@pytest.mark.parametrize("last_ns", [FRAME_UTC_NS_MAX, UTC_NS_MAX])
def test_time_stands_still_at_its_end(last_ns: int) -> None:
    """The end of what a peer may say, and what only a journal of an older version can hold."""
    times = FrameTimes(SimClock(SimWorld(1)))
    for _ in range(3):
        assert times.promise_ns(last_ns) == last_ns - 1
        assert times.next_ns(last_ns) == last_ns


@pytest.mark.parametrize("utc_ns", [FRAME_UTC_NS_MAX + 1, UTC_NS_MAX])
@pytest.mark.parametrize("history", [False, True])
def test_a_peers_frame_of_no_possible_time_is_refused(make_rig: MakeRig, utc_ns: int, history: bool) -> None:
    """Taken, it had every later write of this site framed past what a reader takes: acknowledged, flushed,
    and cut off at the next start."""
    rig = make_rig("one")
    volume = rig.create("root", 8)
    for timeline in (rig.end.timeline, 77):
        before, files = rig.end, rig.files()
        frame = crafted(rig, [(ZERO, volume, 0, 1)], utc_ns=utc_ns, timeline=timeline)
        with pytest.raises(RemoteProtocolError):
            rig.group.follow(frame.prefix, frame.raw, history=history)
        assert (rig.end, rig.files()) == (before, files)


def test_after_the_latest_time_of_a_peer_writes_stay(make_rig: MakeRig) -> None:
    one = make_rig("one")
    other = make_rig("other", site="par", world=one.world, seed=2)
    volume = one.create("root", 4)
    frame = crafted(one, [(ZERO, volume, 0, 1)], utc_ns=FRAME_UTC_NS_MAX)
    one.group.follow(frame.prefix, frame.raw)
    for block in range(4):
        one.group.promise_utc_ns()
        one.write(volume, block, b"a")
    one.sync()
    assert follow(one, other) > 0
    for rig in (one, other):
        assert rig.reopen().torn_bytes == 0
        assert rig.letters("root") == "aaaa"


def test_a_clock_in_the_far_future_does_not_stop_replication(make_rig: MakeRig) -> None:
    one = make_rig("one")
    other = make_rig("other", site="par", world=one.world, seed=2)
    one.clock.jump((UTC_NS_MAX - one.clock.utc_ns()) / NS + YEAR_S)
    volume = one.create("root", 2)
    one.group.promise_utc_ns()
    one.write(volume, 0, b"a", b"b")
    follow(one, other)
    assert other.letters("root") == "ab"
    one.reopen()
    assert one.letters("root") == "ab"
