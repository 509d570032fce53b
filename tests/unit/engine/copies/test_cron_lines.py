"""Cron lines in a time zone: each of their times once, whatever is done to the clock on the wall.

The oracle knows nothing of cronsim: it watches a wall clock minute by minute, as a person would who notes
each time at most once, and catches up on those that were left out.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.copies.cron_lines import cron_line
from engine.copies.schedules import due, last_slot, next_slot, slots_after
from engine.ports.time_zones import check_zone
from protocol.cut_text import NS_PER_S
from protocol.errors import UsageError
from protocol.events import NO_POLICY

MINUTE = timedelta(minutes=1)
BERLIN = "Europe/Berlin"
FIRST = datetime(2009, 1, 1, tzinfo=UTC)
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# Some change at midnight, one by half an hour, one left out a whole day, one has no hour that is whole.
ZONES = (
    BERLIN, "UTC", "America/New_York", "America/Havana", "America/Santiago", "Africa/Cairo", "Asia/Beirut",
    "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca", "Pacific/Apia",
)  # fmt: skip


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * NS_PER_S


def utc(year: int, month: int, day: int, hour: int, minute: int) -> int:
    return ns(datetime(year, month, day, hour, minute, tzinfo=UTC))


def _number(word: str, names: list[str] | None) -> int:
    return names.index(word) if names and word in names else int(word)


def numbers(field: str, low: int, high: int, names: list[str] | None = None) -> set[int]:
    """What a field of a cron line stands for, by its own small reader."""
    found: set[int] = set()
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            ends = low, high
        else:
            begin, end = (
                int(names.index(each) if names and each in names else each) for each in (first, last or first)
            )
            ends = begin, (high if step and not last else end)
        found |= set(range(ends[0], ends[1] + 1, int(step or 1)))
    return found


def oracle(line: str, zone: str, start: datetime, days: int) -> list[int]:
    """Every slot from `start` on, for so many days."""
    minute, hour, day, month, weekday = line.split()
    minutes, hours, months = numbers(minute, 0, 59), numbers(hour, 0, 23), numbers(month, 1, 12)
    weekdays = {each % 7 for each in numbers(weekday, 0, 7, DAYS)}
    both = day.startswith("*") or weekday.startswith("*")

    def wanted(wall: datetime) -> bool:
        if wall.minute not in minutes or wall.hour not in hours or wall.month not in months:
            return False
        last = calendar.monthrange(wall.year, wall.month)[1]
        of_month = wall.day == last if day == "L" else wall.day in numbers(day, 1, 31)
        of_week = (wall.weekday() + 1) % 7 in weekdays
        return (of_month and of_week) if both else (of_month or of_week)

    def wall_of(moment: datetime) -> datetime:
        return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)

    found = []
    furthest = wall_of(start - timedelta(days=2))
    moment = start - timedelta(days=2)
    while moment < start + timedelta(days=days):
        wall = wall_of(moment)
        if len(hours) == 24:
            is_slot = wanted(wall)
        else:
            is_slot = False
            while furthest < wall:
                furthest += MINUTE
                is_slot = is_slot or wanted(furthest)
        if is_slot and moment >= start:
            found.append(ns(moment))
        moment += MINUTE
    return found


def changes_of(zone: str) -> Iterator[datetime]:
    """Around when the zone's clock is set, in some years."""
    moment = FIRST
    while moment < datetime(2029, 1, 1, tzinfo=UTC):
        later = moment + timedelta(days=1)
        if moment.astimezone(ZoneInfo(zone)).utcoffset() != later.astimezone(ZoneInfo(zone)).utcoffset():
            yield moment
        moment = later


CHANGES = [(zone, moment) for zone in ZONES for moment in changes_of(zone)]
ANY_DAY = st.tuples(
    st.sampled_from(ZONES), st.integers(0, 7305).map(lambda days: FIRST + timedelta(days=days, minutes=days))
)


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    ranges = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    starts = st.sampled_from(["*", f"{low}-{high}", str(low)])
    steps = st.tuples(starts, st.integers(1, 7)).map(lambda parts: f"{parts[0]}/{parts[1]}")
    one = number.map(str) | ranges | steps
    return st.just("*") | one | st.lists(one, min_size=2, max_size=3).map(",".join)


LINES = st.tuples(
    fields(0, 59),
    # Clocks are set at night.
    fields(0, 23) | fields(0, 4),
    st.sampled_from(["*"]) | fields(1, 31) | st.just("L"),
    st.just("*") | fields(1, 12),
    st.sampled_from(["*", "*", "MON-FRI", "sun", "7", "0,3", "*/2"]),
).map(" ".join)


@settings(max_examples=80, deadline=None)
@given(line=LINES, place=st.sampled_from(CHANGES) | ANY_DAY)
@example(line="30 2 * * *", place=(BERLIN, datetime(2027, 3, 28, tzinfo=UTC)))
@example(line="30 2 * * *", place=(BERLIN, datetime(2027, 10, 31, tzinfo=UTC)))
@example(line="*/10 2 * * *", place=(BERLIN, datetime(2027, 3, 28, tzinfo=UTC)))
@example(line="30 */2 * * *", place=(BERLIN, datetime(2027, 3, 28, tzinfo=UTC)))
@example(line="*/15 * * * *", place=(BERLIN, datetime(2027, 10, 31, tzinfo=UTC)))
@example(line="0 12 30 12 *", place=("Pacific/Apia", datetime(2011, 12, 30, tzinfo=UTC)))
@example(line="0 0 * * *", place=("America/Santiago", datetime(2027, 9, 5, tzinfo=UTC)))
def test_slots_are_those_that_a_watcher_of_the_wall_clock_notes(
    line: str, place: tuple[str, datetime]
) -> None:
    zone, start = place
    try:
        slots = cron_line(line, zone)
    except UsageError as error:
        refused = error.message
        slots = None
    if slots is None:
        assert "never comes" in refused
        assert not oracle(line, "UTC", start, 3)
        return
    expected = oracle(line, zone, start, 3)
    end = start + timedelta(days=3)
    found = []
    for slot_ns in slots.after(ns(start) - 1):
        if slot_ns >= ns(end):
            break
        found.append(slot_ns)
    assert found == expected
    # From any moment on, by either question.
    for slot_ns, following in pairwise(expected[:200]):
        assert slots.last(slot_ns) == slots.last(slot_ns + 59 * NS_PER_S) == slot_ns
        assert slots.next(slot_ns) == slots.next(following - 1) == following
        assert slots.last(following - 1) == slot_ns


def test_a_time_that_is_left_out_comes_when_the_clock_goes_on() -> None:
    """02:00 becomes 03:00 in Berlin on 28 March 2027, at 01:00 UTC."""
    policy = replace(NO_POLICY, cron="30 2 * * *", zone=BERLIN)
    runs = list(islice(slots_after(policy, utc(2027, 3, 27, 0, 0)), 3))
    assert runs == [utc(2027, 3, 27, 1, 30), utc(2027, 3, 28, 1, 0), utc(2027, 3, 29, 0, 30)]


def test_a_time_that_comes_twice_is_a_slot_once() -> None:
    """03:00 becomes 02:00 in Berlin on 31 October 2027, at 01:00 UTC: 02:30 is at 00:30 and 01:30."""
    policy = replace(NO_POLICY, cron="30 2 * * *", zone=BERLIN)
    first, second = utc(2027, 10, 31, 0, 30), utc(2027, 11, 1, 1, 30)
    assert next_slot(policy, utc(2027, 10, 30, 12, 0)) == first
    fresh = cron_line.__wrapped__(policy.cron, policy.zone)
    assert fresh.next(utc(2027, 10, 31, 1, 10)) == second, "asked at 02:10 of the second showing"
    minute = 60 * NS_PER_S
    due_at = [
        at for at in range(first - minute, second, minute) if due(policy, 1, first - 86_400 * NS_PER_S, at)
    ]
    assert due_at[0] == first
    taken = [first - 86_400 * NS_PER_S]
    for at in range(first - minute, second + minute, minute):
        if due(policy, 1, taken[-1], at) is not None:
            taken.append(at)
    assert taken[1:] == [first, second]


def test_missed_slots_are_made_up_once_and_a_clock_that_went_back_ends_nothing() -> None:
    policy = replace(NO_POLICY, cron="0 */6 * * *", zone=BERLIN)
    noon = utc(2027, 6, 1, 10, 0)  # 12:00 in Berlin
    assert due(policy, 1, utc(2027, 5, 20, 0, 0), noon + 9) == noon
    assert due(policy, 1, noon + 9, noon + 10) is None
    assert due(policy, 1, noon + 86_400 * NS_PER_S, noon + 9) == noon, "taken while the clock was ahead"
    assert due(policy, noon + 1, 0, noon + 9) is None, "slots before the policy was set"


@pytest.mark.parametrize("line", ["* * * * *", "* * 29 2 *", "0 0 29 2 *", "59 23 L * *", "0 0 13 * 5"])
def test_what_was_asked_before_changes_no_answer(line: str) -> None:
    """It remembers between which slots it was asked last; a clock goes ahead and back."""
    fresh = partial(cron_line.__wrapped__, line, BERLIN)
    used = fresh()
    start = utc(2024, 2, 29, 12, 0)
    for hours in (0, 5, 24 * 40, -24 * 400, 1, 24 * 365 * 5, 0):
        at = start + hours * 3600 * NS_PER_S
        assert (used.last(at), used.next(at)) == (fresh().last(at), fresh().next(at))
        assert (used.last(at) or 0) <= at < (used.next(at) or at + 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0 30 2 *", "at character 5 of '0 0 30 2 *': the day '30 2 *' never comes"),
        ("0  0 31  4,6 *", "at character 6"),
        ("0 0 */20 * 1L", "at character 5"),
        ("61 * * * *", "at character 1 of '61 * * * *': '61' is no minute"),
        ("0 24 * * *", "at character 3 of '0 24 * * *': '24' is no hour"),
        ("0 0 1 13 *", "at character 7 of '0 0 1 13 *': '13' is no month"),
        ("0 0 1 1 8", "at character 9 of '0 0 1 1 8': '8' is no day of the week"),
        ("0 0 1 1 m\u00f8n", "at character 9"),
        ("5-1 * * * *", "at character 1"),
        ("*/0 * * * *", "at character 1"),
        ("@daily", "five fields"),
        ("0 0 0 * * *", "has 6"),
        ("", "has 0"),
    ],
)  # fmt: skip
def test_a_line_that_means_nothing_is_refused_where_it_is_wrong(line: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        cron_line(line, "UTC")
    assert said in caught.value.message
    assert caught.value.next_step


@settings(max_examples=100, deadline=None)
@given(st.text("0123456789*,-/#LWmon \t\u00b2", max_size=40) | st.text(max_size=20))
def test_whatever_is_typed_is_a_line_or_is_refused(text: str) -> None:
    try:
        line = cron_line(text, BERLIN)
    except UsageError:
        return
    now = utc(2027, 1, 1, 0, 0)
    following = line.next(now)
    assert following is None or following > now


def test_a_zone_is_one_that_there_is_everywhere() -> None:
    assert check_zone(BERLIN) == BERLIN
    for name, near in (
        ("europe/berlin", BERLIN),
        ("Europe/Berln", BERLIN),
        ("localtime", ""),
        ("../etc", ""),
    ):
        with pytest.raises(UsageError, match="no time zone") as caught:
            check_zone(name)
        assert near in caught.value.next_step
    for name in ("Europe", "No/Where", "/etc/localtime", "../../etc/passwd", ""):
        with pytest.raises(UsageError, match="no time zone"):
            cron_line("0 0 * * *", name)


def test_a_policy_that_this_site_cannot_read_is_an_error_and_no_defect() -> None:
    """As a peer with other zones, or another version, may have set it."""
    for policy in (
        replace(NO_POLICY, cron="0 0 * * *", zone="Mars/Olympus"),
        replace(NO_POLICY, cron="99 0 * * *", zone="UTC"),
    ):
        with pytest.raises(UsageError):
            last_slot(policy, utc(2027, 1, 1, 0, 0))
