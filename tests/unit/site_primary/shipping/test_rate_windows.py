"""Rates by the time of day: which holds, and until when. The oracle looks at a wall clock every minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.commands.peer import RateWindow
from protocol.cut_text import NS_PER_S
from site_primary.shipping.rate_windows import LOOK_AHEAD, RateNow, rate_at, rate_now

BERLIN = "Europe/Berlin"
ZONES = (BERLIN, "UTC", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia")
OTHER = 7 << 20
MIB = 1 << 20


def window(text: str, rate_bytes_s: int, zone: str = BERLIN) -> RateWindow:
    begin, end = (int(each[:2]) * 60 + int(each[3:]) for each in text.split("-"))
    return RateWindow(from_minute=begin, until_minute=end, zone=zone, rate_bytes_s=rate_bytes_s)


def at(text: str) -> int:
    """UTC nanoseconds of `2027-03-28 01:00`."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS_PER_S


@lru_cache
def minutes_of(begin: int, end: int) -> dict[int, int]:
    """Counted off one by one, as a clock does: each with the days since the one on which it began."""
    minutes, day = {begin: 0}, 0
    while (begin := (begin + 1) % 1440) != end:
        day += begin == 0
        minutes[begin] = day
    return minutes


def oracle(rate_bytes_s: int, windows: list[RateWindow], moment: datetime) -> int:
    rates = set()
    for each in windows:
        wall = moment.astimezone(ZoneInfo(each.zone)).replace(tzinfo=None)
        day = minutes_of(each.from_minute, each.until_minute).get(wall.hour * 60 + wall.minute)
        if day is not None and (not each.days or (wall - timedelta(days=day)).weekday() in each.days):
            rates.add(each.rate_bytes_s)
    if not rates:
        return rate_bytes_s
    return min(rates - {0}) if rates - {0} else 0


MINUTES = st.integers(0, 1439) | st.integers(0, 48).map(lambda each: each * 5)
WINDOWS = st.lists(
    st.builds(
        RateWindow,
        from_minute=MINUTES,
        until_minute=MINUTES,
        zone=st.sampled_from(ZONES),
        rate_bytes_s=st.sampled_from([0, MIB, 2 * MIB, OTHER]),
    ).filter(lambda each: each.from_minute != each.until_minute),
    max_size=3,
)
# The days on which clocks were set, and others.
MOMENTS = st.sampled_from(
    ["2027-03-28", "2027-10-31", "2027-03-14", "2027-11-07", "2027-04-04", "2027-10-03", "2011-12-30"]
).flatmap(
    lambda day: st.integers(-1440, 2880).map(
        lambda minutes: datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(minutes=minutes)
    )
)


@settings(max_examples=60, deadline=None)
@given(windows=WINDOWS, moment=MOMENTS, rate=st.sampled_from([0, OTHER]))
@example(windows=[window("02:10-02:50", MIB)], moment=datetime(2027, 3, 28, tzinfo=UTC), rate=0)
@example(windows=[window("02:30-05:00", MIB)], moment=datetime(2027, 10, 31, 0, 45, tzinfo=UTC), rate=0)
@example(windows=[window("22:00-06:00", 0)], moment=datetime(2027, 10, 30, 21, tzinfo=UTC), rate=OTHER)
def test_it_is_what_a_watcher_of_the_wall_clock_sees(
    windows: list[RateWindow], moment: datetime, rate: int
) -> None:
    now_ns = int(moment.timestamp()) * NS_PER_S
    expected = oracle(rate, windows, moment)
    found = rate_now(rate, windows, now_ns)
    assert found.rate_bytes_s == rate_at(rate, windows, now_ns) == expected
    assert rate_at(rate, windows, now_ns + 59 * NS_PER_S + 999_999_000) == expected
    later = moment
    while later < moment + LOOK_AHEAD - timedelta(minutes=1):
        later += timedelta(minutes=1)
        if oracle(rate, windows, later) != expected:
            assert found.until_ns == int(later.timestamp()) * NS_PER_S
            return
    assert found.until_ns is None or found.until_ns > int(later.timestamp()) * NS_PER_S


QUARTERS = st.integers(0, 95).map(lambda each: each * 15)
WINDOWS_OF_DAYS = st.lists(
    st.builds(
        RateWindow,
        from_minute=QUARTERS,
        until_minute=QUARTERS,
        zone=st.sampled_from(ZONES),
        rate_bytes_s=st.sampled_from([0, MIB, OTHER]),
        days=st.sets(st.integers(0, 6), min_size=1, max_size=6).map(lambda each: tuple(sorted(each))),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=80, deadline=None)
@given(windows=WINDOWS_OF_DAYS, moment=MOMENTS, rate=st.sampled_from([0, OTHER]))
def test_it_is_so_of_days_of_the_week(windows: list[RateWindow], moment: datetime, rate: int) -> None:
    """Also of whole days, over midnight, and over a day that a zone leaves out (Apia, 30 December 2011)."""
    moment = moment.replace(minute=moment.minute // 15 * 15)
    now_ns = int(moment.timestamp()) * NS_PER_S
    expected = oracle(rate, windows, moment)
    found = rate_now(rate, windows, now_ns)
    assert found.rate_bytes_s == rate_at(rate, windows, now_ns) == expected
    for quarters in range(1, 10 * 96):
        later = moment + timedelta(minutes=15 * quarters)
        if oracle(rate, windows, later) != expected:
            assert found.until_ns == int(later.timestamp()) * NS_PER_S
            return
    assert found.until_ns is None or found.until_ns > now_ns + 9 * 86_400 * NS_PER_S


def test_office_hours_on_working_days() -> None:
    """1 June 2027 is a Tuesday."""
    office = [replace(window("08:00-18:00", MIB), days=(0, 1, 2, 3, 4))]
    assert rate_now(0, office, at("2027-06-04 15:59")) == RateNow(MIB, at("2027-06-04 16:00"))
    assert rate_now(0, office, at("2027-06-04 16:00")) == RateNow(0, at("2027-06-07 06:00"))
    night = [replace(window("22:00-06:00", MIB), days=(4,))]  # Friday's, which ends on Saturday
    assert rate_now(0, night, at("2027-06-04 20:00")) == RateNow(MIB, at("2027-06-05 04:00"))
    assert rate_now(0, night, at("2027-06-05 04:00")) == RateNow(0, at("2027-06-11 20:00"))
    whole = [replace(window("00:00-00:00", MIB), days=(6,))]  # in autumn a Sunday of 25 hours
    assert rate_now(0, whole, at("2027-10-30 22:00")) == RateNow(MIB, at("2027-10-31 23:00"))


def test_over_midnight() -> None:
    nightly = [window("22:00-06:00", 0)]
    assert rate_now(MIB, nightly, at("2027-06-01 19:59")) == RateNow(MIB, at("2027-06-01 20:00"))
    assert rate_now(MIB, nightly, at("2027-06-01 20:00")) == RateNow(0, at("2027-06-02 04:00"))
    assert rate_now(MIB, nightly, at("2027-06-02 03:59")) == RateNow(0, at("2027-06-02 04:00"))


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2027-03-27 23:00", "2027-03-28 01:00"),  # to 02:00, which the clock shows as 03:00
        ("2027-10-31 00:10", "2027-10-31 02:00"),  # the hour from 02:00 twice
    ],
)
def test_over_changes_of_the_clock(now: str, until: str) -> None:
    assert rate_now(0, [window("00:00-03:00", MIB)], at(now)) == RateNow(MIB, at(until))


def test_of_several_the_slowest_holds_and_without_any_the_peers_own() -> None:
    windows = [window("08:00-18:00", 2 * MIB, "UTC"), window("12:00-13:00", MIB, "UTC")]
    assert rate_now(OTHER, windows, at("2027-06-01 12:30")) == RateNow(MIB, at("2027-06-01 13:00"))
    assert rate_now(OTHER, windows, at("2027-06-01 18:00")) == RateNow(OTHER, at("2027-06-02 08:00"))
    assert rate_now(OTHER, [], at("2027-06-01 18:00")) == RateNow(OTHER, None)
    same = [window("08:00-18:00", OTHER, "UTC")]
    assert rate_now(OTHER, same, at("2027-06-01 12:30")) == RateNow(OTHER, None)


def test_a_window_in_a_zone_that_is_not_known_here_never_holds() -> None:
    assert (
        rate_now(OTHER, [window("00:00-12:00", MIB, "Mars/Olympus")], at("2027-06-01 01:00")).rate_bytes_s
        == OTHER
    )
