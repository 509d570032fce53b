"""Only a lineage that a start can read back is installed with a base."""

from __future__ import annotations

from typing import Any

import pytest

from engine.history.base_lineage import new_timelines
from engine.history.timelines import Timeline, TimelineTable
from protocol.base_messages import TimelineRow, encode_parts
from protocol.errors import RemoteProtocolError, WrongState
from protocol.limits import GENERATION_MAX, TIMELINES_MAX
from protocol.positions import Cut

ROOT, MIDDLE, HEAD, X = 1, 9, 5, 77
CUT = Cut(HEAD, 300)


def row(timeline: int, parent: int, fork: int, **fields: Any) -> TimelineRow:
    usual: dict[str, Any] = {"generation": 1, "writer": "par"}
    return TimelineRow(timeline=timeline, parent=parent, fork=fork, **(usual | fields))


GOOD = [row(ROOT, 0, 0), row(MIDDLE, ROOT, 100), row(HEAD, MIDDLE, 250)]
BAD = {
    "none": [],
    "not to the cut": GOOD[:2],
    "past the cut": [*GOOD[:2], row(HEAD, MIDDLE, 300)],
    "a child that leaves before its parent began": [*GOOD, row(6, 0, 100), row(7, 6, 50)],
    "a fork before the parent's own": [GOOD[0], row(MIDDLE, ROOT, 100), row(HEAD, MIDDLE, 99)],
    "a fork at the parent's own": [GOOD[0], row(MIDDLE, ROOT, 100), row(HEAD, MIDDLE, 100)],
    "a circle": [row(ROOT, 0, 0), row(MIDDLE, ROOT, 100), row(ROOT, MIDDLE, 200), row(HEAD, ROOT, 250)],
    "its own parent": [row(HEAD, HEAD, 0)],
    "a parent that is not named": GOOD[1:],
    "one that leads nowhere": [GOOD[0], row(8, ROOT, 50), *GOOD[1:]],
    "the base's own": [GOOD[0], row(X, ROOT, 100), row(HEAD, X, 250)],
    "a generation that nobody could outrank": [*GOOD[:2], row(HEAD, MIDDLE, 250, generation=GENERATION_MAX)],
    "too many": [row(each + 1, each, each) for each in range(TIMELINES_MAX + 1)],
}


def known(*rows: TimelineRow) -> TimelineTable:
    return TimelineTable(
        Timeline(id=each.timeline, parent=each.parent, fork=each.fork, generation=1, writer="par", lane=3)
        for each in rows
    )


def parts(rows: list[TimelineRow]) -> tuple[bytes, ...]:
    return tuple(encode_parts(rows, []))


def test_what_is_not_known_comes_root_first_in_one_lane() -> None:
    found = new_timelines(known(), X, CUT, parts(GOOD))
    assert [(each.id, each.parent, each.fork, each.lane) for each in found] == [
        (ROOT, 0, 0, 0),
        (MIDDLE, ROOT, 100, 0),
        (HEAD, MIDDLE, 250, 0),
    ]
    [head] = new_timelines(known(*GOOD[:2]), X, CUT, parts(GOOD))
    assert (head.id, head.lane) == (HEAD, 4)
    assert new_timelines(known(*GOOD), X, CUT, parts(GOOD)) == ()


@pytest.mark.parametrize("name", list(BAD))
def test_what_is_no_lineage_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        new_timelines(known(), X, CUT, parts(BAD[name]))


@pytest.mark.parametrize(
    "other", [row(MIDDLE, ROOT, 90), row(MIDDLE, 0, 100), row(HEAD, ROOT, 250)], ids=repr
)
def test_a_known_timeline_keeps_its_place(other: TimelineRow) -> None:
    with pytest.raises(RemoteProtocolError):
        new_timelines(known(GOOD[0], other), X, CUT, parts(GOOD))


def test_a_full_table_is_said_before_anything_is_installed() -> None:
    full = known(*(row(each, 0, 0) for each in range(100, 99 + TIMELINES_MAX)))
    with pytest.raises(WrongState):
        new_timelines(full, X, CUT, parts(GOOD))
