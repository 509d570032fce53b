"""Volumes as the journal tells them: by name at a cut, and a name used again is another volume."""

from __future__ import annotations

import pytest

from engine.history.timelines import Span
from engine.history.volumes import VolumeHistory
from protocol.errors import NotFound
from protocol.events import Revert, VolumeCreated, VolumeDeleted
from protocol.positions import Cut


def until(position: int) -> list[Span]:
    return [Span(1, 0, 0, position)]


@pytest.fixture
def history() -> VolumeHistory:
    """`root` at 10, deleted at 30, made again at 40; `data` at 20."""
    made = VolumeHistory()
    made.created(1, 10, VolumeCreated(name="root", size_bytes=4096))
    made.created(1, 20, VolumeCreated(name="data", size_bytes=8192))
    made.deleted(1, 30, VolumeDeleted(volume=10))
    made.created(1, 40, VolumeCreated(name="root", size_bytes=12288))
    return made


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (10, {}),
        (11, {"root": 10}),
        (30, {"root": 10, "data": 20}),
        (31, {"data": 20}),
        (41, {"root": 40, "data": 20}),
    ],
)
def test_what_exists_is_what_the_cut_has_seen(
    history: VolumeHistory, position: int, expected: dict[str, int]
) -> None:
    assert {name: volume.id for name, volume in history.at(until(position)).items()} == expected


@pytest.mark.parametrize("position", [0, 10, 11, 31, 41])
def test_whether_any_exists_is_known_without_the_list(history: VolumeHistory, position: int) -> None:
    assert history.any_at(until(position)) is bool(history.at(until(position)))
    history.deleted(1, 35, VolumeDeleted(volume=20))
    assert history.any_at(until(position)) is bool(history.at(until(position)))


def test_a_volume_of_a_branch_is_not_here(history: VolumeHistory) -> None:
    history.created(2, 45, VolumeCreated(name="other", size_bytes=4096))
    assert "other" not in history.at(until(100))
    assert "other" in history.at([*until(40), Span(2, 1, 40, 100)])


def test_a_deletion_on_a_branch_does_not_count_here(history: VolumeHistory) -> None:
    history.deleted(2, 45, VolumeDeleted(volume=20))
    assert "data" in history.at(until(100))
    assert "data" not in history.at([*until(40), Span(2, 1, 40, 100)])


def test_what_is_not_there_is_not_found_by_its_whole_name(history: VolumeHistory) -> None:
    with pytest.raises(NotFound, match="vm1/none") as caught:
        history.find(until(100), "none", "vm1/none")
    assert caught.value.subject == "vm1/none"


def test_seeing_events_again_changes_nothing(history: VolumeHistory) -> None:
    """The index and the journal both tell of what lies near the checkpoint."""
    before = history.at(until(100))
    history.created(1, 10, VolumeCreated(name="root", size_bytes=4096))
    history.deleted(1, 30, VolumeDeleted(volume=10))
    assert history.at(until(100)) == before


def test_reverts_come_in_order_of_position(history: VolumeHistory) -> None:
    for position in (90, 70, 80, 70):
        history.reverted(1, position, Revert(volume=20, cut=Cut(1, position - 5)))
    assert [entry.position for entry in history.reverts_of(20)] == [70, 80, 90]
    assert history.reverts_of(99) == []
