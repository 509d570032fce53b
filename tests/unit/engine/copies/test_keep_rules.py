"""Keep rules: of each period the newest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

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


def names(texts: list[str], rules: KeepRules, zone: tzinfo = UTC) -> list[str]:
    ids = kept([(at(text), number) for number, text in enumerate(texts)], rules, zone)
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


BERLIN = ZoneInfo("Europe/Berlin")


def every_half_hour(first: str, last: str) -> list[str]:
    moment, texts = datetime.fromisoformat(first), list[str]()
    while moment <= datetime.fromisoformat(last):
        texts.append(f"{moment:%Y-%m-%d %H:%M}")
        moment += timedelta(minutes=30)
    return texts


def test_days_are_those_of_the_zone() -> None:
    """By UTC the second and the third were of one day, the first of the day before."""
    texts = ["2027-06-01 21:30", "2027-06-01 22:30", "2027-06-02 21:30", "2027-06-02 22:30"]
    assert names(texts, KeepRules(daily=9), BERLIN) == [texts[0], texts[2], texts[3]]
    assert names(texts, KeepRules(daily=9)) == [texts[1], texts[3]]
    found = kept([(at(texts[2]), 1), (at("2027-01-03 23:30"), 2)], KeepRules(daily=1, weekly=2), BERLIN)
    assert found == {1: ["daily 2027-06-02", "weekly 2027-W22"], 2: ["weekly 2027-W01"]}  # a Monday there


@pytest.mark.parametrize(
    ("day", "first", "last", "hours"),
    [
        ("2027-03-28", "2027-03-27 23:00", "2027-03-28 21:30", 23),
        ("2027-06-01", "2027-05-31 22:00", "2027-06-01 21:30", 24),
        ("2027-10-31", "2027-10-30 22:00", "2027-10-31 22:30", 25),
    ],
)
def test_a_day_has_the_hours_that_its_clock_shows(day: str, first: str, last: str, hours: int) -> None:
    texts = every_half_hour("2027-01-01 00:00", "2027-01-01 00:00") + every_half_hour(first, last)
    assert len(texts) == 1 + 2 * hours
    assert names(texts, KeepRules(hourly=99), BERLIN) == [texts[0], *texts[2::2]]
    found = kept([(at(text), number) for number, text in enumerate(texts)], KeepRules(daily=2), BERLIN)
    assert found == {2 * hours: [f"daily {day}"], 0: ["daily 2027-01-01"]}


def test_an_hour_that_comes_twice_is_two() -> None:
    twice = kept([(at("2027-10-31 00:30"), 1), (at("2027-10-31 01:30"), 2)], KeepRules(hourly=9), BERLIN)
    assert twice == {2: ["hourly 2027-10-31 02 +0100"], 1: ["hourly 2027-10-31 02 +0200"]}


def test_a_clock_that_goes_back_over_midnight_shows_no_day_twice() -> None:
    """St John's, 26 October 2003: from 00:01 of Sunday to 23:01 of Saturday."""
    texts = [f"2003-10-26 {time}" for time in ("02:00", "02:30", "03:00", "03:30", "04:00")]
    assert names(texts, KeepRules(daily=9), ZoneInfo("America/St_Johns")) == [texts[2], texts[4]]


@given(backups=backup_sets, rules=rule_sets, zone=st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe"]))
def test_in_any_zone_pruning_again_prunes_nothing(
    backups: list[tuple[int, int]], rules: KeepRules, zone: str
) -> None:
    found = kept(backups, rules, ZoneInfo(zone))
    assert kept([backup for backup in backups if backup[1] in found], rules, ZoneInfo(zone)) == found


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
