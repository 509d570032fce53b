"""The gate of the synchronous modes: who waits, for how long, and what is durable before whom is answered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.group.head_moves import begin_timeline
from engine.peering.pair_states import Mode
from site_primary.sync_gate import GatePhase
from tests.unit.engine.group_rig import GroupRig, follow, take_other_line
from tests.unit.site_primary.held_gate import TIMEOUT_S, Held

MakeRig = Callable[..., GroupRig]


@pytest.fixture
def held(rig: GroupRig) -> Held:
    return Held(rig)


# -- who waits


def test_async_and_no_pair_wait_for_nobody(held: Held) -> None:
    held.wait("unpaired")
    held.start(Mode.ASYNC, connected=False)
    held.wait("async")
    held.flush("flush")
    assert held.log == [("unpaired", True), ("async", True), ("flush", True)]
    assert not held.gate.closed
    assert not held.gate.fallen_back
    assert held.gate.admit() is None


@pytest.mark.parametrize("mode", [Mode.SYNC, Mode.SYNC_STRICT])
def test_a_write_waits_until_the_peer_has_it(held: Held, mode: Mode) -> None:
    held.start(mode)
    first = held.wait("first")
    second = held.wait("second")
    third = held.wait("third")
    assert held.log == []
    assert not held.gate.passes(first)
    held.acknowledge(second - 1)
    assert held.log == [("first", True)]
    held.acknowledge(third)
    assert held.log == [("first", True), ("second", True), ("third", True)]
    assert held.gate.passes(third)
    assert held.rows == []


def test_a_flush_waits_until_it_is_durable_there_and_asks_for_it(held: Held) -> None:
    held.start(Mode.SYNC)
    begin = held.gate.remote_durable
    end = held.write()
    held.flush("one")
    held.flush("two")
    held.acknowledge(end, begin)
    assert held.log == [("ask", end)]
    held.acknowledge(end, end)
    assert held.log == [("ask", end), ("one", True), ("two", True)]
    held.flush("nothing new")
    assert held.log[-1] == ("nothing new", True)


def test_a_new_session_is_asked_again(held: Held) -> None:
    held.start(Mode.SYNC)
    begin = held.gate.remote_durable
    end = held.write()
    held.flush("one")
    held.gate.on_session(connected=False)
    held.gate.on_session(connected=True)
    held.acknowledge(end, begin)
    assert held.log == [("ask", end), ("ask", end)]


def test_what_a_lost_peer_had_only_written_does_not_count(held: Held) -> None:
    held.start(Mode.SYNC)
    durable = held.gate.remote_durable
    end = held.write()
    held.acknowledge(end, durable)
    assert held.gate.passes(end)
    held.gate.on_session(connected=False)
    assert not held.gate.passes(end)
    assert held.gate.passes(durable)


# -- sync: the fallback


def test_sync_falls_back_at_the_time_out_once_that_is_durable(held: Held) -> None:
    held.start(Mode.SYNC)
    held.wait("first")
    held.rig.settle(3)
    held.wait("second")
    held.flush("flush")
    held.log.clear()
    held.rig.settle(TIMEOUT_S - 3 - 0.01)
    assert held.log == []
    held.rig.settle(0.02)
    assert held.log == [("durable", True), ("first", True), ("second", True), ("flush", True)]
    assert held.rows == [(Mode.SYNC, True)]
    assert held.kinds() == ["pair.fallback"]
    assert held.gate.fallen_back
    held.wait("later")
    assert held.log[-1] == ("later", True)


def test_an_answer_in_time_gives_those_behind_it_their_own_time(held: Held) -> None:
    held.start(Mode.SYNC)
    first = held.wait("first")
    held.rig.settle(4)
    held.wait("second")
    held.acknowledge(first)
    held.rig.settle(4.5)
    assert held.log == [("first", True)]
    held.rig.settle(1)
    assert held.log == [("first", True), ("durable", True), ("second", True)]


def test_a_peer_that_has_been_away_for_long_is_not_waited_for_again(held: Held) -> None:
    held.start(Mode.SYNC)
    held.gate.on_session(connected=False)
    held.rig.settle(TIMEOUT_S - 1)
    held.wait("soon after")
    assert held.log == []
    held.rig.settle(1.1)
    assert held.log == [("durable", True), ("soon after", True)]


def test_nothing_is_said_while_nobody_writes(held: Held) -> None:
    held.start(Mode.SYNC)
    held.gate.on_session(connected=False)
    held.rig.settle(100)
    assert not held.gate.fallen_back
    held.wait("late")
    assert held.log == [("durable", True), ("late", True)]


def test_after_a_start_the_peer_has_its_time(held: Held) -> None:
    held.start(Mode.SYNC, connected=False)
    held.rig.settle(2)
    end = held.wait("first")
    held.gate.on_session(connected=True)
    held.acknowledge(end)
    assert held.log == [("first", True)]
    assert held.rows == []


def test_a_fallback_that_cannot_be_kept_answers_nobody_well(held: Held) -> None:
    held.start(Mode.SYNC)
    held.disk_error = OSError("no")
    held.wait("first")
    held.rig.settle(TIMEOUT_S + 0.1)
    assert held.log == [("first", False)]
    assert not held.gate.fallen_back
    held.disk_error = None
    held.wait("second")
    held.rig.settle(TIMEOUT_S + 0.1)
    assert held.log == [("first", False), ("durable", True), ("second", True)]


# -- the way back


def test_it_returns_by_itself_when_the_peer_has_everything(held: Held) -> None:
    held.start(Mode.SYNC, fallen_back=True, connected=False)
    held.wait("before")
    held.gate.on_session(connected=True)
    before = held.gate.remote_written
    held.gate.on_marks(before, before)
    assert not held.gate.closed
    held.acknowledge()
    assert held.gate.phase is GatePhase.IN_FORCE
    assert held.rows == [(Mode.SYNC, False)]
    assert held.kinds() == ["pair.sync_again"]


def test_under_a_stream_of_writes_it_returns_through_waiting(held: Held) -> None:
    """The peer never has everything while hosts go on without it: they must wait for it first."""
    held.start(Mode.SYNC, fallen_back=True, connected=False)
    held.gate.on_session(connected=True)
    ends = [held.wait(f"w{n}") for n in range(3)]
    held.gate.on_marks(ends[0], 0)
    held.rig.settle(0.2)
    held.wait("w3")
    held.gate.on_marks(ends[2], 0)
    assert held.gate.phase is GatePhase.RETURNING
    assert held.gate.fallen_back
    assert held.log == [("w0", True), ("w1", True), ("w2", True), ("w3", True)]
    held.log.clear()
    last = held.wait("waits")
    assert held.log == []
    held.acknowledge(last)
    assert held.log == [("waits", True), ("durable", False)]
    assert not held.gate.fallen_back


def test_a_peer_that_is_slow_does_not_make_hosts_wait(held: Held) -> None:
    held.start(Mode.SYNC, fallen_back=True, connected=False)
    held.gate.on_session(connected=True)
    end = held.write()
    held.gate.on_marks(0, 0)
    held.rig.settle(2)
    held.write()
    held.gate.on_marks(end, 0)
    assert held.gate.phase is GatePhase.OPEN


def test_a_return_that_does_not_succeed_is_tried_again_later_and_later(held: Held) -> None:
    held.start(Mode.SYNC, fallen_back=True, connected=False)
    held.gate.on_session(connected=True)
    waits = []
    for _ in range(9):
        began_s = held.rig.clock.monotonic()
        while held.gate.phase is GatePhase.OPEN:
            end = held.write()
            held.write()
            held.rig.settle(0.1)
            held.gate.on_marks(end, end)
        waits.append(round(held.rig.clock.monotonic() - began_s))
        held.wait("stuck")
        held.rig.settle(TIMEOUT_S + 0.1)
        assert held.log == [("stuck", True)]
        held.log.clear()
    assert waits == sorted(waits)
    assert waits[0] == 0
    assert 55 < waits[-1] < 65
    assert held.rows == []


def test_a_session_lost_on_the_way_back_opens_at_once(held: Held) -> None:
    held.start(Mode.SYNC_STRICT, fallen_back=True, connected=False)
    held.gate.on_session(connected=True)
    end = held.write()
    held.gate.on_marks(0, 0)
    held.write()
    held.gate.on_marks(end, 0)
    assert held.gate.phase is GatePhase.RETURNING
    held.wait("first")
    held.gate.on_session(connected=False)
    assert held.log == [("first", True)]
    assert held.rows == []


# -- strict


def test_strict_fails_what_waited_too_long_and_falls_back_never(held: Held) -> None:
    held.start(Mode.SYNC_STRICT)
    held.wait("first")
    held.rig.settle(3)
    second = held.wait("second")
    held.flush("flush")
    held.log.clear()
    held.rig.settle(2.1)
    assert held.log == [("first", False)]
    assert held.kinds() == ["pair.refusing"]
    held.acknowledge(second)
    assert held.log == [("first", False), ("second", True), ("flush", True)]
    assert held.kinds() == ["pair.refusing", "pair.accepting"]
    assert held.rows == []


def test_strict_admits_no_write_while_the_peer_is_away(held: Held) -> None:
    held.start(Mode.SYNC_STRICT)
    held.gate.on_session(connected=False)
    held.rig.settle(TIMEOUT_S - 0.1)
    assert held.gate.admit() is None
    held.rig.settle(0.2)
    refusal = held.gate.admit()
    assert refusal is not None
    assert "away" in str(refusal)
    held.flush("nothing new")
    held.write()
    held.flush("something new")
    assert held.log == [("nothing new", True), ("something new", False)]
    held.gate.on_session(connected=True)
    assert held.gate.admit() is None
    held.acknowledge()
    assert held.kinds() == ["pair.refusing", "pair.accepting"]


def test_strict_lets_hosts_write_while_a_new_pair_is_copied(held: Held) -> None:
    held.start(Mode.SYNC_STRICT, fallen_back=True, connected=False)
    held.rig.settle(100)
    assert held.gate.admit() is None
    held.wait("first")
    assert held.log == [("first", True)]
    held.gate.on_session(connected=True)
    held.acknowledge()
    assert held.gate.phase is GatePhase.IN_FORCE


# -- what operators do


def test_a_split_is_durable_before_anyone_goes_on(held: Held) -> None:
    held.start(Mode.SYNC_STRICT)
    held.wait("first")
    held.gate.suspend("split")
    assert held.log == [("durable", True), ("first", True)]
    held.gate.on_session(connected=False)
    held.rig.settle(100)
    assert held.gate.admit() is None
    held.gate.on_session(connected=True)
    held.acknowledge()
    assert not held.gate.fallen_back


def test_the_mode_changes_while_hosts_write(held: Held) -> None:
    held.start(Mode.ASYNC)
    end = held.write()
    held.gate.on_marks(end, 0)
    held.write()
    held.gate.set_mode(Mode.SYNC)
    assert held.rows == [(Mode.SYNC, True)]
    assert held.gate.fallen_back
    held.acknowledge()
    assert held.rows == [(Mode.SYNC, True), (Mode.SYNC, False)]
    held.wait("sync")
    held.gate.set_mode(Mode.SYNC_STRICT)
    assert held.rows[2:] == [(Mode.SYNC_STRICT, False)]
    assert ("sync", True) not in held.log
    held.gate.set_mode(Mode.ASYNC)
    assert held.rows[3:] == [(Mode.ASYNC, False)]
    assert held.log[-2:] == [("durable", False), ("sync", True)]


def test_an_idle_group_is_in_sync_at_once(held: Held) -> None:
    held.start(Mode.ASYNC)
    held.gate.set_mode(Mode.SYNC)
    assert held.gate.phase is GatePhase.IN_FORCE
    assert held.rows == [(Mode.SYNC, True), (Mode.SYNC, False)]


def test_a_mode_that_cannot_be_kept_is_not_taken(held: Held) -> None:
    held.start(Mode.SYNC)
    held.disk_error = OSError("no")
    with pytest.raises(OSError, match="no"):
        held.gate.set_mode(Mode.ASYNC)
    held.wait("first")
    with pytest.raises(OSError, match="no"):
        held.gate.suspend("split")
    assert held.gate.mode is Mode.SYNC
    assert held.log == []


def test_without_its_pair_nobody_waits(held: Held) -> None:
    held.start(Mode.SYNC_STRICT)
    held.wait("first")
    held.gate.stop()
    held.wait("second")
    assert held.log == [("first", True), ("second", True)]
    assert not held.gate.fallen_back
    held.rig.settle(100)
    assert held.gate.admit() is None


def test_a_closed_gate_answers_nobody_and_leaves_no_timer(held: Held) -> None:
    held.start(Mode.SYNC)
    held.wait("first")
    held.gate.close()
    held.rig.settle(100)
    assert held.log == []


# -- a head that was left


def test_who_waits_for_a_head_that_was_left_stands_in_nobodys_way(held: Held, make_rig: MakeRig) -> None:
    """The other site took over at an earlier place: what was written past it here is a branch, and the
    positions come anew."""
    other = make_rig("other", site="par", seed=2)
    follow(held.rig, other)
    begin_timeline(other.group, authority=True)
    held.start(Mode.SYNC)
    for name in ("first", "second", "third"):
        held.wait(name)
    held.flush("flush")
    take_other_line(held.rig, other)
    held.rig.settle(0.1)
    refused = [(name, False) for name in ("flush", "third", "second", "first")]
    assert sorted(map(str, held.log[-4:])) == sorted(map(str, refused))
    held.log.clear()
    end = held.wait("anew")
    held.acknowledge(end)
    assert held.log == [("anew", True)]
