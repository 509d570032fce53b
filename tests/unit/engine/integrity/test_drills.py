"""Kept drills: order, bounds, and a group's rows apart from those of groups with names like it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.group.site_state import SITE_TABLES
from engine.integrity import drills
from engine.integrity.drills import Drill, Drills, Step
from engine.ports.lmdb_store import LmdbStore
from protocol.limits import DRILL_SAID_CHARS_MAX, DRILL_STEPS_MAX
from protocol.positions import Cut

STEP = Step(step="mount", volume="v", state="ok", took_ms=12, said="ext4")
DRILL = Drill(
    group="g",
    started_utc_ns=1000,
    volumes=("v", "w"),
    cut=Cut(7, 4096),
    cut_utc_ns=900,
    ok=True,
    recovery_ms=464,
    data_age_ms=-1,
    steps=(STEP,),
)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Drills]:
    """An empty book."""
    store = LmdbStore(tmp_path / "state.mdb", 1 << 24, SITE_TABLES)
    yield Drills(store)
    store.close()


def test_drills_come_newest_first_and_by_group(kept: Drills) -> None:
    assert kept.last("g", 1 << 62) is None
    for name, started in (("g", 1000), ("g2", 1500), ("g", 2000), ("f", 3000)):
        kept.add(replace(DRILL, group=name, started_utc_ns=started))
    assert [each.started_utc_ns for each in kept.of("g")] == [2000, 1000]
    assert kept.last("g", 2000) == replace(DRILL, started_utc_ns=2000)
    assert kept.last("g", 1999) == replace(DRILL, started_utc_ns=1000)  # the other is dated ahead
    assert kept.last("g", 999) is None
    assert [each.group for each in kept.of("g2")] == ["g2"]
    assert kept.of("g", 1) == [replace(DRILL, started_utc_ns=2000)]


def test_two_that_began_together_are_both_kept(kept: Drills) -> None:
    kept.add(DRILL)
    assert kept.add(replace(DRILL, ok=False)).started_utc_ns == 1001
    assert [each.ok for each in kept.of("g")] == [False, True]


def test_the_oldest_goes(kept: Drills, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drills, "DRILLS_KEPT_MAX", 3)
    for started in range(5):
        kept.add(replace(DRILL, started_utc_ns=started))
    assert [each.started_utc_ns for each in kept.of("g")] == [4, 3, 2]


def test_the_largest_drill_fits(kept: Drills) -> None:
    step = replace(STEP, said="\U0001f9ef" * DRILL_SAID_CHARS_MAX, volume="v" * 63, step="s" * 63)
    whole = replace(DRILL, steps=(step,) * DRILL_STEPS_MAX, volumes=("v" * 63,) * 256)
    kept.add(whole)
    assert kept.last("g", 1 << 62) == whole
