"""What is wrong, from figures alone; and that it is said once when it begins and once when it is over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from daemon.alerts.conditions import (
    DRILL_MISSED_AFTER_S,
    KINDS,
    MISSED_AFTER_S,
    Condition,
    CopyFigures,
    PairFigures,
    PeerFigures,
    certificate_conditions,
    copy_conditions,
    disk_conditions,
    pair_conditions,
    peer_conditions,
)
from daemon.alerts.limits import AlertLimits, check_limits
from daemon.alerts.standing import SETTLE_S, Standing, clocks_left_wrong, left_standing
from daemon.event_log import EventLog, level_of
from engine.peering.pair_states import PairState
from engine.retention.pressure import Stage
from protocol.errors import UsageError
from protocol.limits import HEARTBEAT_TIMEOUT_S
from tests.unit.daemon.test_event_log import Clock

WELL = PairFigures(
    group="g",
    peer="b",
    state=PairState.PAIRED,
    reason="",
    peer_heard=True,
    lag_s=0.5,
    lag_bytes=4096,
    stage=Stage.NORMAL,
    time_to_full_s=None,
)
COPIES = CopyFigures(group="g", slot_age_s=None, backup_age_s=None, drill_age_s=None, follows=True)
LIMITS = AlertLimits(max_lag_s=60.0, max_lag_bytes=1 << 20, max_backup_age_s=3600.0, max_drill_age_s=86400.0)
NONE = AlertLimits(max_lag_s=0.0)


def test_a_peer_is_silent_once_it_was_not_heard_for_long_unless_all_is_split() -> None:
    silent = PeerFigures(peer="b", silent_s=HEARTBEAT_TIMEOUT_S + 0.1, pairs=2)
    (found,) = peer_conditions(silent)
    assert (found.kind, found.subject, found.fields["pairs"]) == ("peer.silent", "b", 2)
    assert not list(peer_conditions(replace(silent, silent_s=HEARTBEAT_TIMEOUT_S)))
    assert not list(peer_conditions(replace(silent, pairs=0)))


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({}, []),
        ({"state": PairState.SUSPENDED}, ["pair.suspended"]),
        ({"state": PairState.SUSPENDED, "peer_heard": False}, []),
        ({"state": PairState.DIVERGED}, ["pair.diverged"]),
        ({"lag_s": 60.1}, ["pair.lagging"]),
        ({"lag_bytes": (1 << 20) + 1}, ["pair.lagging"]),
        ({"lag_s": 9e9, "state": PairState.SPLIT}, []),
        ({"lag_s": None, "lag_bytes": None}, []),
        ({"state": PairState.FILLING}, ["journal.filling"]),
        ({"stage": Stage.WARNING}, ["journal.filling"]),
    ],
)
def test_a_pair_says_what_is_wrong_with_it(change: dict[str, Any], kinds: list[str]) -> None:
    assert [each.kind for each in pair_conditions(replace(WELL, **change), LIMITS)] == kinds


def test_without_limits_no_figure_is_too_large() -> None:
    assert not list(pair_conditions(replace(WELL, lag_s=9e9, lag_bytes=1 << 60), NONE))
    assert not list(copy_conditions(replace(COPIES, backup_age_s=9e9), NONE))
    (found,) = copy_conditions(replace(COPIES, drill_due_s=DRILL_MISSED_AFTER_S + 1), NONE)
    assert (found.kind, found.fields) == ("drill.missed", {"late_s": DRILL_MISSED_AFTER_S + 1})
    assert not list(copy_conditions(replace(COPIES, drill_due_s=DRILL_MISSED_AFTER_S), NONE))


def test_copies_that_do_not_exist_are_too_old() -> None:
    assert [each.kind for each in copy_conditions(COPIES, LIMITS)] == ["backup.old", "drill.old"]
    here = replace(COPIES, follows=False, backup_age_s=10.0)
    assert not list(copy_conditions(here, LIMITS))


def test_a_backup_is_missed_some_minutes_after_its_slot() -> None:
    late = replace(COPIES, slot_age_s=MISSED_AFTER_S + 1, failure="no room")
    (found,) = copy_conditions(late, NONE)
    assert (found.kind, found.fields["error"]) == ("backup.missed", "no room")
    assert not list(copy_conditions(replace(late, slot_age_s=MISSED_AFTER_S), NONE))


def test_a_disk_fills_before_the_reserve_is_used() -> None:
    (found,) = disk_conditions(399, 100)
    assert found.kind == "disk.filling"
    assert not list(disk_conditions(400, 100))
    assert not list(disk_conditions(0, 0))


def test_errors_are_what_a_person_must_look_at_now() -> None:
    levels = {kind: level_of(kind, {}) for kind in ("peer.silent", "pair.suspended", "pair.diverged")}
    assert set(levels.values()) == {"error"}
    assert level_of("pair.lagging", {}) == level_of("group.taken_over", {}) == "warning"
    assert level_of("peer.silent", {"resolved": True}) == "info"


def test_each_is_said_once_when_it_begins_and_once_when_it_is_over() -> None:
    standing, silent = Standing({}), Condition(kind="peer.silent", subject="b")
    (began,) = standing.look("peers", [silent], 10.0)
    assert not began.over
    assert not standing.look("peers", [replace(silent, fields={"silent_s": 7.0})], 11.0)
    (ended,) = standing.look("peers", [], 15.0)
    assert (ended.over, ended.lasted_s, ended.condition.kind) == (True, 5.0, "peer.silent")
    assert not standing.look("peers", [], 16.0)


def test_what_must_last_is_not_said_before_and_not_ended_if_it_was_never_said() -> None:
    standing, late = Standing({"pair.suspended": 10.0}), Condition(kind="pair.suspended", group="g")
    assert not standing.look("pair g", [late], 0.0)
    assert not standing.look("pair g", [], 5.0)
    assert not standing.look("pair g", [late], 6.0)
    assert standing.look("pair g", [late], 16.0)


def test_only_what_was_looked_at_ends_and_what_is_gone_ends_too() -> None:
    standing = Standing({})
    standing.look("pair g", [Condition(kind="pair.diverged", group="g")], 0.0)
    assert not standing.look("pair other", [], 1.0)
    assert not standing.keep(lambda scope: scope == "pair g", 2.0)
    (ended,) = standing.keep(lambda _: False, 3.0)
    assert ended.condition.group == "g"


def test_what_an_earlier_run_said_is_not_said_again_and_its_end_is() -> None:
    log = EventLog(Clock())
    log.emit("peer.silent", object="b", silent_s=7.0)
    log.emit("disk.filling", free_bytes=5)
    log.emit("disk.filling", resolved=True)
    log.emit("pair.lagging", group="g")
    log.emit("drill.old", group="g", site="b")
    log.emit("drill.failed", group="g")
    found = list(left_standing(log.newer(0), 100.0))
    assert [(scope, each.key) for scope, each, _ in found] == [
        ("peers", ("peer.silent", "", "b")),
        ("pair g", ("pair.lagging", "g", "")),
    ]
    standing, (silent, lagging) = Standing(), (each for _, each, _ in found)
    for scope, condition, stood_s in found:
        standing.take_up(scope, condition, stood_s, 50.0)
    assert [each.kind for each in standing.said()] == ["peer.silent", "pair.lagging"]
    # A peer was not silent for long enough yet: that is not its end.
    assert not standing.look("peers", [], 51.0)
    assert not standing.look("peers", [silent], 57.0)
    assert not standing.look("pair g", [lagging], 57.0)
    (ended,) = standing.look("pair g", [], 50.0 + SETTLE_S)
    assert (ended.over, ended.condition.kind, ended.lasted_s) == (True, "pair.lagging", 100.0 + SETTLE_S)


@pytest.mark.parametrize(
    ("left_days", "kinds"),
    [
        (None, []),
        (30.1, []),
        (30.0, ["cert.ends"]),
        (7.1, ["cert.ends"]),
        (7.0, ["cert.ends", "cert.ends_soon"]),
        (-400.0, ["cert.ends", "cert.ends_soon"]),
    ],
)
def test_a_certificate_is_spoken_of_before_it_ends(left_days: float | None, kinds: list[str]) -> None:
    found = list(certificate_conditions(left_days))
    assert [each.kind for each in found] == kinds
    levels = [level_of(each.kind, {}) for each in found]
    assert levels == ["warning", "error"][: len(kinds)]


def test_every_condition_is_taken_up_in_the_scope_that_is_looked_at() -> None:
    bad = replace(WELL, state=PairState.SUSPENDED, lag_s=1e9, stage=Stage.WARNING)
    late = replace(COPIES, slot_age_s=1e6, drill_due_s=1e6)
    found = {
        "peers": peer_conditions(PeerFigures(peer="b", silent_s=1e9, pairs=1)),
        "pair": [
            *pair_conditions(bad, LIMITS),
            *pair_conditions(replace(WELL, state=PairState.DIVERGED), LIMITS),
        ],
        "copies": copy_conditions(late, LIMITS),
        "disk": disk_conditions(1, 100),
        "certificate": certificate_conditions(1.0),
    }
    assert {each.kind: scope for scope, those in found.items() for each in those} == KINDS


def test_a_clock_that_was_wrong_at_the_stop_is_known_to_be_wrong() -> None:
    log = EventLog(Clock())
    log.emit("peer.clock_skew", object="b")
    log.emit("peer.clock_skew", object="c")
    log.emit("peer.clock_right", object="b")
    assert clocks_left_wrong(log.newer(0)) == {"c"}


@pytest.mark.parametrize("value", [-1.0, float("nan"), 1e12])
def test_a_limit_is_a_span(value: float) -> None:
    with pytest.raises(UsageError, match=r"alerts\.max_lag_s"):
        check_limits(AlertLimits(max_lag_s=value))
