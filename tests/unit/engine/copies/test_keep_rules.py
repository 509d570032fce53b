"""Keep rules: of each period the newest."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.copies.keep_rules import KeepRules, kept
from protocol.cut_text import NS_PER_S

counts = st.integers(0, 6)
rule_sets = st.builds(
    KeepRules, last=counts, hourly=counts, daily=counts, weekly=counts, monthly=counts, yearly=counts
)
times = st.integers(0, 4_000_000_000).map(lambda seconds: seconds * NS_PER_S + 17)
backup_sets = st.lists(times, max_size=60).map(lambda found: list(zip(found, range(len(found)), strict=True)))


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS_PER_S


def names(texts: list[str], rules: KeepRules) -> list[str]:
    ids = kept([(at(text), number) for number, text in enumerate(texts)], rules)
    return sorted(texts[number] for number in ids)


def test_the_newest_of_each_day_stays() -> None:
    texts = ["2026-03-28 23:59", "2026-03-29 00:00", "2026-03-29 12:00", "2026-03-31 02:00"]
    assert names(texts, KeepRules(daily=2)) == ["2026-03-29 12:00", "2026-03-31 02:00"]
    assert names(texts, KeepRules(daily=3)) == ["2026-03-28 23:59", "2026-03-29 12:00", "2026-03-31 02:00"]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (KeepRules(last=1), ["2027-01-04 00:00"]),
        (KeepRules(hourly=2), ["2027-01-03 23:30", "2027-01-04 00:00"]),
        (KeepRules(weekly=2), ["2027-01-03 23:30", "2027-01-04 00:00"]),  # Sunday and Monday
        (KeepRules(monthly=2), ["2026-12-31 23:00", "2027-01-04 00:00"]),
        (KeepRules(yearly=5), ["2026-12-31 23:00", "2027-01-04 00:00"]),
        (KeepRules(), []),
    ],
)
def test_periods(rules: KeepRules, expected: list[str]) -> None:
    texts = [
        "2026-12-31 22:00",
        "2026-12-31 23:00",
        "2027-01-03 23:00",
        "2027-01-03 23:30",
        "2027-01-04 00:00",
    ]
    assert names(texts, rules) == expected


def test_an_iso_week_may_lie_in_two_years() -> None:
    """2026-12-31 and 2027-01-01 are of one week, 2026-W53."""
    assert names(["2026-12-31 12:00", "2027-01-01 12:00"], KeepRules(weekly=5)) == ["2027-01-01 12:00"]


def test_why_each_stays() -> None:
    found = kept([(at("2026-03-29 12:00"), 1)], KeepRules(last=1, daily=1, weekly=1))
    assert found == {1: ["last", "daily 2026-03-29", "weekly 2026-W13"]}


@given(backup_sets, rule_sets)
def test_the_newest_stays_if_anything_does(backups: list[tuple[int, int]], rules: KeepRules) -> None:
    found = kept(backups, rules)
    assert bool(found) == bool(backups and any(rules))
    if found:
        assert max(backups)[1] in found
    assert len(found) <= sum(rules)


@given(backup_sets, rule_sets, st.integers(0, 5))
def test_a_larger_count_keeps_more(backups: list[tuple[int, int]], rules: KeepRules, which: int) -> None:
    more = KeepRules(*(count + (at == which) for at, count in enumerate(rules)))
    assert kept(backups, rules).keys() <= kept(backups, more).keys()


@given(backup_sets, rule_sets)
def test_pruning_again_prunes_nothing(backups: list[tuple[int, int]], rules: KeepRules) -> None:
    """What was pruned does not make room for others, so a prune may be repeated or interrupted."""
    found = kept(backups, rules)
    assert kept([backup for backup in backups if backup[1] in found], rules) == found
