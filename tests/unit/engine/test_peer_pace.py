"""A peer's share of this site's time."""

from __future__ import annotations

from engine.peer_pace import PeerPace
from protocol.limits import PEER_CALL_S_MAX, PEER_DEBT_S_END, PEER_TIME_BURST_S, PEER_TIME_SHARE


def test_who_had_a_burst_waits_until_it_is_paid_off() -> None:
    pace = PeerPace()
    assert pace.ready("lon", 10.0)
    pace.spend("lon", 10.0, PEER_TIME_BURST_S + 0.01)
    assert not pace.ready("lon", 10.0)
    assert pace.ready("rom", 10.0)
    assert not pace.ready("lon", 10.0 + 0.009 / PEER_TIME_SHARE)
    assert pace.ready("lon", 10.0 + 0.011 / PEER_TIME_SHARE)


def test_over_a_long_time_it_has_its_share() -> None:
    pace, now_s, spent_s = PeerPace(), 0.0, 0.0
    while now_s < 100.0:
        if pace.ready("lon", now_s):
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
    assert pace.ready("lon", 10.0 + PEER_CALL_S_MAX / PEER_TIME_SHARE)
    for _ in range(int(PEER_DEBT_S_END / PEER_CALL_S_MAX)):
        pace.spend("lon", 20.0, 60.0)
    assert pace.exhausted("lon", 20.0)
