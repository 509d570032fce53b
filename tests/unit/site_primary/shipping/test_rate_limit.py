"""The law of a rate: whoever has something to send to a peer sends a message in turn, none is passed over,
and all together stay within the rate."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.limits import FRAME_BYTES_MAX
from site_primary.shipping.rate_limit import BURST_S, SendQueue, TokenBucket
from tests.sim.world import NS, SimClock, SimWorld


class Bang(Exception):
    """What nobody expects."""


class Road:
    """A peer with a rate, who sent what to it, and when."""

    def __init__(self, rate_bytes_s: int) -> None:
        self.world = SimWorld(1)
        self.queue = SendQueue(SimClock(self.world), TokenBucket(rate_bytes_s))
        self.sent: list[tuple[str, int, float]] = []

    @property
    def order(self) -> list[str]:
        return [name for name, _, _ in self.sent]


class Endless:
    """Always has a message more, of a size of its own. `most` is what it sends in all."""

    def __init__(self, road: Road, name: str, size_bytes: int, most: int = 1 << 30) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.left = most
        self.defects: list[Exception] = []
        self.fails = False
        self._road = road

    def take_turn(self) -> None:
        """See `Sender.take_turn`."""
        if self.fails:
            raise Bang
        road = self._road
        while self.left and road.queue.may_send(self):
            self.left -= 1
            road.sent.append((self.name, self.size_bytes, road.world.now_ns / NS))
            road.queue.sent(self.size_bytes)

    def turn_failed(self, defect: Exception) -> None:
        """See `Sender.turn_failed`."""
        self.defects.append(defect)


SIZES = st.sampled_from([4096, 70_000, 1 << 20]) | st.integers(4096, FRAME_BYTES_MAX)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(64 << 10, 4 << 20),
    st.lists(SIZES, min_size=1, max_size=20),
    st.lists(st.tuples(SIZES, st.integers(1, 8)), max_size=4),
)
def test_each_in_turn_and_all_within_the_rate(
    rate: int, groups: list[int], answers: list[tuple[int, int]]
) -> None:
    """Groups without end and answers that come to one, whatever the sizes: between two messages of one, each
    of the others that still has some sends exactly one."""
    road = Road(rate)
    senders = [Endless(road, f"group {at}", size) for at, size in enumerate(groups)]
    senders += [Endless(road, f"answers {at}", size, most) for at, (size, most) in enumerate(answers)]
    road.queue.sent(int(rate * BURST_S))  # nothing is left of the burst when they come
    for sender in senders:
        sender.take_turn()
    round_s = sum(sender.size_bytes for sender in senders) / rate
    road.world.run_for(12 * round_s + 2.0)

    last: dict[str, int] = {}
    order = road.order
    for at, name in enumerate(order):
        between = order[last.get(name, -1) + 1 : at]
        assert len(between) == len(set(between))
        last[name] = at
    counts = Counter(order)
    of_groups = [counts[sender.name] for sender in senders[: len(groups)]]
    assert min(of_groups) >= 10
    assert max(of_groups) - min(of_groups) <= 1
    assert [sender.left for sender in senders[len(groups) :]] == [0] * len(answers)
    # Never more than one message above the rate, and never less than it by more than a timer's wait.
    total = 0
    for _, size, at_s in road.sent:
        assert total <= rate * at_s + 1
        total += size
    assert total >= rate * (road.world.now_ns / NS - BURST_S) - FRAME_BYTES_MAX


def test_a_small_sender_is_heard_as_often_as_a_large_one() -> None:
    road = Road(1 << 20)
    senders = [Endless(road, "large", 1 << 20), Endless(road, "small", 1), Endless(road, "answers", 4 << 20)]
    for sender in senders:
        sender.take_turn()
    road.world.run_for(100.0)
    later = road.order[road.order.index("small") :]
    assert len(later) > 30
    assert {name for name, other in pairwise(later) if name == other} == set()


def test_without_a_rate_nobody_waits_and_no_clock_is_asked() -> None:
    road = Road(0)
    Endless(road, "one", 1 << 20, 100).take_turn()
    Endless(road, "other", 1, 100).take_turn()
    assert road.order == ["one"] * 100 + ["other"] * 100
    assert not road.world.step()


def test_who_leaves_is_not_waited_for() -> None:
    road = Road(1 << 20)
    gone, first, last = (Endless(road, name, 1 << 20) for name in ("gone", "first", "last"))
    gone.take_turn()
    for sender in (first, last):
        sender.take_turn()
    assert road.order == ["gone"]
    road.queue.leave(gone)
    road.world.run_for(3.1)
    assert road.order[1:] in (["first", "last"], ["first", "last", "first"])
    road.queue.leave(first)
    road.queue.leave(last)
    assert not road.world.step(), "nobody waits"


def test_a_rate_that_is_changed_or_lifted_holds_at_once() -> None:
    road = Road(64 << 10)
    senders = [Endless(road, name, 4 << 20, 3) for name in ("one", "other")]
    for sender in senders:
        sender.take_turn()
    road.world.run_for(1.0)
    assert road.order == ["one"]
    road.queue.set_rate(32 << 20)
    road.world.run_for(0.3)
    assert road.order[:3] == ["one", "one", "other"], "who came first is the first to go"
    road.queue.set_rate(64 << 10)
    before = len(road.sent)
    road.world.run_for(1.0)
    assert len(road.sent) <= before + 1
    road.queue.set_rate(0)
    road.world.run_for(0.0)
    assert Counter(road.order) == {"one": 3, "other": 3}


def test_whose_turn_fails_is_told_and_the_next_one_sends() -> None:
    road = Road(1 << 20)
    bad, good = Endless(road, "bad", 1 << 20), Endless(road, "good", 1 << 20)
    bad.take_turn()
    good.take_turn()
    bad.fails = True
    road.world.run_for(10.0)
    assert [type(defect) for defect in bad.defects] == [Bang]
    assert Counter(road.order)["good"] >= 8
