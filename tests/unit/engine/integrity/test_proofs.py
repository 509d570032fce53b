"""What drills are proof of, told drills and plans, as they are kept: the largest fits, groups stay apart."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.group.site_state import SITE_TABLES
from engine.integrity import drills, proofs
from engine.integrity.drills import Drill, Drills
from engine.integrity.proofs import NO_EXIT_CODE, Plan, Proof, Proofs, ToldDrill, beside_its_drill
from engine.ports.lmdb_store import LmdbStore
from protocol.positions import Cut
from protocol.proof_limits import (
    CHECK_COMMAND_CHARS_MAX,
    CHECK_OUTPUT_CHARS_MAX,
    CHECK_USER_CHARS_MAX,
    TOOL_CHARS_MAX,
    TOOLS_MAX,
)

WIDE = "\U0001f9ef"
DRILL = Drill(
    group="g",
    started_utc_ns=1000,
    volumes=("v",),
    cut=Cut(7, 4096),
    cut_utc_ns=900,
    ok=True,
    recovery_ms=464,
    data_age_ms=-1,
    steps=(),
)
PROOF = Proof(
    by="uid:0",
    version="0.1.0",
    label="nightly",
    backup=(1 << 64) - 1,
    hook="sqlite",
    command="sqlite of Farshore",
    user="root (0)",
    exit_code=0,
    output="sound",
    tools=("sqlite3 3.40.1",),
    digests=(("v", "xxh3:00", 4096),),
)
TOLD = ToldDrill(
    site="b",
    timeline=7,
    position=4096,
    ok=True,
    recovery_ms=1,
    data_age_ms=-1,
    by="uid:0",
    label="nightly",
    backup="f" * 16,
    hook="",
    digest="sha256:" + "0" * 64,
)
PLAN = Plan(every_s=60, hook="sqlite", args=("a", "b"), user="", set_utc_ns=5_000_000_000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    """An empty one."""
    made = LmdbStore(tmp_path / "state.mdb", 1 << 24, SITE_TABLES)
    yield made
    made.close()


@pytest.fixture
def kept(store: LmdbStore) -> Proofs:
    """An empty book."""
    return Proofs(store)


def test_a_proof_is_found_by_its_drill(store: LmdbStore, kept: Proofs) -> None:
    assert kept.of(DRILL) is None
    assert Drills(store).add(DRILL, beside_its_drill(PROOF)) == DRILL
    assert kept.of(DRILL) == PROOF
    assert kept.of(replace(DRILL, group="g2")) is None
    later = Drills(store).add(DRILL, beside_its_drill(replace(PROOF, by="uid:1")))
    found = [kept.of(DRILL), kept.of(later)]
    assert found == [PROOF, replace(PROOF, by="uid:1")]


class OneWrite(LmdbStore):
    """A store whose process is killed when it begins to write a second time."""

    writes = 0

    def write(self) -> Any:
        self.writes += 1
        if self.writes > 1:
            raise OSError(errno.EIO, "killed")
        return super().write()


def test_a_drill_and_its_proof_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    store = OneWrite(tmp_path / "state.mdb", 1 << 24, SITE_TABLES)
    with suppress(OSError):
        Drills(store).add(DRILL, beside_its_drill(PROOF))
    store.close()
    store = OneWrite(tmp_path / "state.mdb", 1 << 24, SITE_TABLES)
    assert (Drills(store).last("g", 1 << 62), Proofs(store).of(DRILL)) == (DRILL, PROOF)
    store.close()


def test_the_proofs_of_old_drills_go_with_them(
    store: LmdbStore, kept: Proofs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drills, "DRILLS_KEPT_MAX", 2)
    for started in (1, 2, 3):
        Drills(store).add(replace(DRILL, started_utc_ns=started), beside_its_drill(PROOF))
    found = [kept.of(replace(DRILL, started_utc_ns=started)) for started in (1, 2, 3)]
    assert found == [None, PROOF, PROOF]


def test_the_largest_proof_fits(store: LmdbStore, kept: Proofs) -> None:
    whole = replace(
        PROOF,
        command=WIDE * CHECK_COMMAND_CHARS_MAX,
        output=WIDE * CHECK_OUTPUT_CHARS_MAX,
        user=WIDE * CHECK_USER_CHARS_MAX,
        tools=(WIDE * TOOL_CHARS_MAX,) * TOOLS_MAX,
        exit_code=NO_EXIT_CODE,
        digests=(("v" * 63, "x" * 63, 1 << 60),) * 256,
    )
    Drills(store).add(DRILL, beside_its_drill(whole))
    assert kept.of(DRILL) == whole


def test_told_drills_come_newest_first_and_by_group(kept: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    for group, started in (("g", 10), ("g2", 15), ("g", 20), ("g", 20), ("f", 30)):
        kept.hear(group, started, TOLD)
    assert [started for started, _ in kept.told("g")] == [20, 10]
    assert kept.told("g", 1) == [(20, TOLD)]
    assert kept.told("g", 1, 20) == [(10, TOLD)]
    assert TOLD.drill("g", 20).cut == Cut(7, 4096)
    monkeypatch.setattr(proofs, "DRILLS_KEPT_MAX", 2)
    kept.hear("g", 30, TOLD)
    assert [started for started, _ in kept.told("g")] == [30, 20]


def test_a_plan_is_put_in_the_place_of_another_and_goes(kept: Proofs) -> None:
    kept.set_plan("g", PLAN)
    kept.set_plan("g", replace(PLAN, every_s=120))
    assert (kept.plan("g"), kept.plan("g2")) == (replace(PLAN, every_s=120), None)
    kept.set_plan("g", None)
    assert kept.plan("g") is None


def test_the_first_drill_is_due_at_once_and_the_next_after_the_last() -> None:
    now_ns = 9_000_000_000
    assert PLAN.due_utc_ns(None, now_ns) == PLAN.due_utc_ns(4_000_000_000, now_ns) == 5_000_000_000
    assert PLAN.due_utc_ns(6_000_000_000, now_ns) == 66_000_000_000


def test_a_plan_set_while_the_clock_was_ahead_is_due_all_the_same() -> None:
    """Nothing was drilled until the clock had come to it, and no alert said so."""
    now_ns = 4_000_000_000
    assert PLAN.due_utc_ns(None, now_ns) == now_ns
    assert PLAN.due_utc_ns(3_000_000_000, now_ns) == 63_000_000_000
