"""A peer's share of this site's time."""

from __future__ import annotations

from collections import Counter

from engine.peering.peer_pace import PeerPace, Turn
from protocol.limits import PEER_CALL_S_MAX, PEER_DEBT_S_END, PEER_TIME_BURST_S, PEER_TIME_SHARE


def test_who_had_a_burst_waits_until_it_is_paid_off() -> None:
    pace = PeerPace()
    assert pace.ready("lon", 10.0, Turn.CALL)
    pace.spend("lon", 10.0, PEER_TIME_BURST_S + 0.01)
    assert not pace.ready("lon", 10.0, Turn.CALL)
    assert pace.ready("rom", 10.0, Turn.CALL)
    assert not pace.ready("lon", 10.0 + 0.009 / PEER_TIME_SHARE, Turn.CALL)
    assert pace.ready("lon", 10.0 + 0.011 / PEER_TIME_SHARE, Turn.CALL)


def test_over_a_long_time_it_has_its_share() -> None:
    pace, now_s, spent_s = PeerPace(), 0.0, 0.0
    while now_s < 100.0:
        if pace.ready("lon", now_s, Turn.CALL):
            now_s += 0.01
            spent_s += 0.01
            pace.spend("lon", now_s, 0.01)
        else:
            now_s += 0.001
    assert abs(spent_s - 100.0 * PEER_TIME_SHARE) < 1.0


def test_a_disk_that_hangs_once_ends_no_session() -> None:
    pace = PeerPace()
    pace.spend("lon", 10.0, 60.0)
    assert not pace.exhausted("lon", 10.0)
    assert pace.ready("lon", 10.0 + PEER_CALL_S_MAX / PEER_TIME_SHARE, Turn.CALL)
    for _ in range(int(PEER_DEBT_S_END / PEER_CALL_S_MAX)):
        pace.spend("lon", 20.0, 60.0)
    assert pace.exhausted("lon", 20.0)


def test_calls_and_questions_take_turns_where_both_wait() -> None:
    pace, now_s, turns = PeerPace(), 0.0, Counter[Turn]()
    for turn in Turn:
        pace.waits("lon", turn, True)
    while now_s < 20.0:
        # Questions are looked at more often and cost more.
        for turn in (Turn.QUESTION, Turn.QUESTION, Turn.CALL):
            if pace.ready("lon", now_s, turn):
                turns[turn] += 1
                pace.spend("lon", now_s, 0.03 if turn is Turn.QUESTION else 0.01, turn)
        now_s += 0.001
    assert abs(turns[Turn.QUESTION] - turns[Turn.CALL]) <= 1
    # What is heard without waiting changes nothing, and who is alone has every turn.
    pace.waits("lon", Turn.CALL, False)
    pace.spend("lon", now_s, 0.0, Turn.QUESTION)
    assert pace.ready("lon", now_s + 10.0, Turn.QUESTION)
