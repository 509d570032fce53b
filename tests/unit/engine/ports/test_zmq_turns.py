"""Who may dial: so many at once, the others in order; whoever leaves the queue is not called."""

from __future__ import annotations

from engine.ports.zmq_turns import DialTurns

MOST = 2
HERE, THERE = "tcp://here:1", "tcp://there:1"


class Dial:
    """Says in `begun` that its turn has come."""

    def __init__(self, name: str, begun: list[str]) -> None:
        self._name = name
        self._begun = begun

    def begin_soon(self) -> None:
        self._begun.append(self._name)


def test_the_first_begin_at_once_and_the_others_in_order() -> None:
    turns, begun = DialTurns(MOST), list[str]()
    dials = [Dial(name, begun) for name in "abcde"]
    assert [turns.take(HERE, dial) for dial in dials] == [True, True, False, False, False]
    assert begun == []
    for dial in (dials[1], dials[0], dials[2]):
        turns.give_back(HERE, dial)
    assert begun == ["c", "d", "e"]
    assert not turns.take(HERE, Dial("f", begun))


def test_each_endpoint_has_its_own() -> None:
    turns, begun = DialTurns(MOST), list[str]()
    assert [turns.take(HERE, Dial(name, begun)) for name in "abc"] == [True, True, False]
    elsewhere = Dial("d", begun)
    assert turns.take(THERE, elsewhere)
    turns.give_back(THERE, elsewhere)
    assert begun == []


def test_whoever_leaves_the_queue_is_passed_over() -> None:
    turns, begun = DialTurns(MOST), list[str]()
    dials = [Dial(name, begun) for name in "abcd"]
    for dial in dials:
        turns.take(HERE, dial)
    turns.give_back(HERE, dials[2])
    turns.give_back(HERE, dials[0])
    assert begun == ["d"]


def test_a_turn_is_given_back_once() -> None:
    turns, begun = DialTurns(MOST), list[str]()
    dials = [Dial(name, begun) for name in "abcd"]
    for dial in dials:
        turns.take(HERE, dial)
    for _ in range(3):
        turns.give_back(HERE, dials[0])
    assert begun == ["c"]


def test_once_all_have_given_back_all_turns_are_free() -> None:
    turns, begun = DialTurns(MOST), list[str]()
    dials = [Dial(name, begun) for name in "abcd"]
    for dial in dials:
        turns.take(HERE, dial)
    for dial in dials:
        turns.give_back(HERE, dial)
    assert [turns.take(HERE, dial) for dial in dials[:3]] == [True, True, False]
