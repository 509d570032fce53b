"""A base with a lineage that no start could read back is not installed, whoever sends it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.base_messages import RecordRow, TimelineRow, encode_parts
from protocol.events import HandOver
from protocol.positions import Cut
from tests.unit.site_primary.shipping.base_pair import BasePair

Rows = list[TimelineRow]
Records = list[RecordRow]


def timeline(id_: int, parent: int, fork: int) -> TimelineRow:
    return TimelineRow(timeline=id_, parent=parent, fork=fork, generation=1, writer="lon")


def in_no_order(rows: Rows, records: Records) -> tuple[Rows, Records]:
    """Each after its parent, but the second leaves the first before that began: a start sorts by forks."""
    return [*rows, timeline(3, 0, 100), timeline(2, 3, 50)], records


def in_a_circle(rows: Rows, records: Records) -> tuple[Rows, Records]:
    return [*rows, timeline(3, 0, 0), timeline(2, 3, 50), timeline(3, 2, 100)], records


def off_the_way(rows: Rows, records: Records) -> tuple[Rows, Records]:
    row = HandOver(to="par").to_row()
    return rows, [*records, RecordRow(timeline=3, position=5, frame_position=5, utc_ns=1, row=row)]


@pytest.mark.parametrize("spoil", [in_no_order, in_a_circle, off_the_way])
def test_it_is_refused_and_the_site_opens_again(
    pair: BasePair, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Rows, Records], tuple[Rows, Records]]
) -> None:
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    with monkeypatch.context() as patch:
        patch.setattr(
            "site_primary.shipping.base_state.encode_parts",
            lambda rows, records: encode_parts(*spoil(list(rows), list(records))),
        )
        pair.start_sender(None)
        pair.connect()
        pair.world.run_for(60.0)
    assert len(pair.failures) == 1
    pair.restart_other()
    assert pair.other.end == Cut(0, 0)
    pair.failures.clear()
    pair.copy(None)
    pair.other.reopen()
    assert pair.other.letters("root") == "a......."


def test_a_base_is_no_timeline_of_its_own_cut(pair: BasePair) -> None:
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    sender = pair.start_sender(None)
    sender.timeline = pair.one.end.timeline
    pair.connect()
    pair.world.run_for(60.0)
    assert "is used already" in pair.failures[0]
    pair.restart_other()
    assert pair.other.end == Cut(0, 0)
