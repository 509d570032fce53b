"""Cuts as text: every form, both ways, and the times that must be refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.cut_text import (
    TIMELINE_MAX,
    CutBackup,
    CutLabel,
    CutLatest,
    CutPosition,
    CutTime,
    NamedCut,
    check_label,
    cut_text,
    is_label,
    parse_export_cut,
    parse_fixed_cut,
    parse_user_cut,
    time_text,
)
from protocol.errors import UsageError
from protocol.limits import UTC_NS_MAX
from protocol.positions import POSITION_MAX, Cut

NS = 1_000_000_000
PARIS = ZoneInfo("Europe/Paris")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # its clocks move by half an hour
ZONES = [UTC, PARIS, LORD_HOWE, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kathmandu")]


def ns(text: str) -> int:
    """Nanoseconds of an ISO time."""
    return round(datetime.fromisoformat(text).timestamp()) * NS


NOW = ns("2026-07-03T12:00:00+00:00")

labels = st.from_regex(r"[a-z][a-z0-9._-]{0,62}", fullmatch=True).filter(is_label)
cuts = st.one_of(
    labels.map(lambda label: CutLabel(label=label)),
    st.integers(0, TIMELINE_MAX).map(lambda number: CutBackup(backup_id=f"{number:016x}")),
    st.integers(0, UTC_NS_MAX).map(lambda utc_ns: CutTime(utc_ns=utc_ns)),
    st.builds(CutPosition, timeline=st.integers(0, TIMELINE_MAX), position=st.integers(0, POSITION_MAX)),
    st.just(CutLatest()),
)


def at(text: str, *, now_ns: int = NOW, zone: tzinfo = PARIS) -> str:
    """What a user's text means, as a UTC time."""
    cut = parse_user_cut(text, now_ns=now_ns, zone=zone)
    assert isinstance(cut, CutTime)
    return time_text(cut.utc_ns)


@given(cuts)
def test_the_text_of_a_cut_parses_back(cut: NamedCut) -> None:
    assert parse_fixed_cut(cut_text(cut)) == cut
    assert parse_user_cut(cut_text(cut), now_ns=NOW, zone=PARIS) == cut


@given(st.text(max_size=200))
def test_any_text_is_a_cut_or_a_usage_error(text: str) -> None:
    for parse in (parse_fixed_cut, parse_export_cut, lambda t: parse_user_cut(t, now_ns=NOW, zone=PARIS)):
        try:
            cut = parse(text)
        except UsageError:
            continue
        assert parse_fixed_cut(cut_text(cut)) == cut


def test_sixteen_hex_digits_are_an_id_and_never_a_label() -> None:
    assert parse_fixed_cut("abcdefabcdefabcd") == CutBackup(backup_id="abcdefabcdefabcd")
    assert not is_label("abcdefabcdefabcd")
    assert parse_fixed_cut("abcdefabcdefabcde") == CutLabel(label="abcdefabcdefabcde")


@pytest.mark.parametrize("label", ["now", "latest", "Abc", "1abc", "", "a" * 64, "a/b", "a b", "a\n", "é"])
def test_bad_labels_are_refused(label: str) -> None:
    with pytest.raises(UsageError):
        check_label(label)
    with pytest.raises(ValueError, match="not a label"):
        CutLabel(label=label)


def test_a_position_is_the_engines_cut() -> None:
    cut = parse_fixed_cut("00000000000000ff:4096")
    assert isinstance(cut, CutPosition)
    assert cut.cut == Cut(0xFF, 4096)


@pytest.mark.parametrize("text", ["00000000000000ff:", "ff:1", "00000000000000FF:1", "00000000000000ff:-1"])
def test_bad_positions_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_fixed_cut(text)


def test_a_position_past_the_largest_is_refused() -> None:
    with pytest.raises(UsageError):
        parse_fixed_cut(f"00000000000000ff:{POSITION_MAX + 1}")


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-07-03T02:45:00Z", "2026-07-03T02:45:00Z"),
        ("2026-07-03t02:45:00z", "2026-07-03T02:45:00Z"),
        ("2026-07-03 02:45:00Z", "2026-07-03T02:45:00Z"),
        ("2026-07-03T02:45:00+02:00", "2026-07-03T00:45:00Z"),
        ("2026-07-02T23:45:00-03:30", "2026-07-03T03:15:00Z"),
        ("2026-07-03T02:45:00.1Z", "2026-07-03T02:45:00.100Z"),
        ("2026-07-03T02:45:00.123456789Z", "2026-07-03T02:45:00.123456789Z"),
        ("2026-07-03T02:45:00.000001Z", "2026-07-03T02:45:00.000001Z"),
    ],
)
def test_rfc_3339(text: str, utc: str) -> None:
    assert at(text) == utc
    assert cut_text(parse_fixed_cut(text)) == utc


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30T00:00:00Z",
        "2026-07-03T25:00:00Z",
        "1969-12-31T23:59:59Z",
        "2026-07-03T00:00:00+99:00",
    ],
)
def test_times_that_no_calendar_has_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_fixed_cut(text)


@pytest.mark.parametrize("text", ["2262-04-11T23:47:17Z", "2999-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_time_past_all_frames_is_the_last_that_can_be_named(text: str) -> None:
    assert parse_fixed_cut(text) == CutTime(utc_ns=UTC_NS_MAX)


@given(st.integers(0, UTC_NS_MAX))
def test_a_time_is_exact_to_the_nanosecond(utc_ns: int) -> None:
    assert parse_fixed_cut(time_text(utc_ns)) == CutTime(utc_ns=utc_ns)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("now", "2026-07-03T12:00:00Z"),
        ("-10m", "2026-07-03T11:50:00Z"),
        ("-2h30m", "2026-07-03T09:30:00Z"),
        ("-1d", "2026-07-02T12:00:00Z"),
        ("-0.5s", "2026-07-03T11:59:59.500Z"),
        ("02:45", "2026-07-03T00:45:00Z"),
        ("today 02:45", "2026-07-03T00:45:00Z"),
        ("yesterday 14:00", "2026-07-02T12:00:00Z"),
        ("2026-01-15 14:00", "2026-01-15T13:00:00Z"),
        ("2026-01-15T14:00:30.25", "2026-01-15T13:00:30.250Z"),
    ],
)
def test_forms_that_only_a_client_reads(text: str, utc: str) -> None:
    assert at(text) == utc
    for parse in (parse_fixed_cut, parse_export_cut):
        with pytest.raises(UsageError):
            parse(text)


@pytest.mark.parametrize(
    "text", ["-", "-m", "10m", "+10m", "-10", "-10m5h", "-99999d", "24:00", "02:60", "tomorrow 10:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_user_cut(text, now_ns=NOW, zone=PARIS)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("10 minutes ago", "2026-07-03T11:50:00Z"),
        ("10m ago", "2026-07-03T11:50:00Z"),
        ("1 hour 30 minutes ago", "2026-07-03T10:30:00Z"),
        ("an hour ago", "2026-07-03T11:00:00Z"),
        ("A minute ago", "2026-07-03T11:59:00Z"),
        ("2 weeks ago", "2026-06-19T12:00:00Z"),
        ("1.5 seconds ago", "2026-07-03T11:59:58.500Z"),
        ("-1min", "2026-07-03T11:59:00Z"),
        ("-2 hours", "2026-07-03T10:00:00Z"),
        ("2:02", "2026-07-03T00:02:00Z"),
        ("yesterday 2:02", "2026-07-02T00:02:00Z"),
        ("yesterday", "2026-07-02T21:59:59.999999999Z"),
        ("2026-06-28", "2026-06-28T21:59:59.999999999Z"),
    ],
)
def test_times_as_people_write_them(text: str, utc: str) -> None:
    assert at(text) == utc


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-07-03", "not over"),
        ("2026-07-04", "not over"),
        ("2026-02-30", "calendar"),
        ("10 ago", "no cut"),
        ("minutes ago", "no cut"),
        ("an ago", "no cut"),
        ("today", "no cut"),
    ],
)
def test_what_is_almost_a_time_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_user_cut(text, now_ns=NOW, zone=PARIS)


def test_a_day_ends_when_its_clocks_say_so() -> None:
    # That day had 23 hours in Paris; the end of a day, and not 24 hours after its beginning, counts.
    assert at("2026-03-29", zone=PARIS) == "2026-03-29T21:59:59.999999999Z"
    assert at("2026-03-28", zone=PARIS) == "2026-03-28T22:59:59.999999999Z"


def test_a_local_time_in_the_future_is_refused_with_what_was_perhaps_meant() -> None:
    with pytest.raises(UsageError, match="future") as caught:
        parse_user_cut("23:00", now_ns=NOW, zone=PARIS)
    assert "yesterday 23:00" in caught.value.next_step


def test_yesterday_is_by_the_calendar_not_by_24_hours() -> None:
    # The clocks of Paris were set forward in the night before: that day had 23 hours.
    assert at("yesterday 12:00", now_ns=ns("2026-03-30T10:00:00+00:00")) == "2026-03-29T10:00:00Z"
    assert at("yesterday 12:00", now_ns=ns("2026-03-29T10:30:00+00:00")) == "2026-03-28T11:00:00Z"


def test_an_hour_that_happened_twice_is_refused_with_both_readings() -> None:
    with pytest.raises(UsageError, match="happened twice") as caught:
        parse_user_cut("02:30", now_ns=ns("2026-10-25T12:00:00+00:00"), zone=PARIS)
    assert "2026-10-25T00:30:00Z" in caught.value.message
    assert "2026-10-25T01:30:00Z" in caught.value.message


def test_an_hour_that_never_was_is_refused() -> None:
    with pytest.raises(UsageError, match="does not exist"):
        parse_user_cut("02:30", now_ns=ns("2026-03-29T12:00:00+00:00"), zone=PARIS)


def test_half_an_hour_is_seen_too() -> None:
    with pytest.raises(UsageError, match="happened twice"):
        parse_user_cut("2026-04-05 01:45", now_ns=NOW, zone=LORD_HOWE)
    assert at("2026-04-05 01:15", zone=LORD_HOWE) == "2026-04-04T14:15:00Z"


@given(
    st.integers(946_684_800, 1_780_000_000).map(
        lambda s: datetime.fromtimestamp(s, UTC).replace(tzinfo=None)
    ),
    st.sampled_from(ZONES),
)
def test_a_local_time_is_taken_exactly_when_the_clocks_showed_it_once(wall: datetime, zone: tzinfo) -> None:
    """Judged without PEP 495: try every quarter of an hour's offset, count the moments that show `wall`."""
    offsets = [timedelta(minutes=15 * quarter) for quarter in range(-48, 57)]
    moments = {(wall - offset).replace(tzinfo=UTC) for offset in offsets}
    showing = [moment for moment in moments if moment.astimezone(zone).replace(tzinfo=None) == wall]
    try:
        cut = parse_user_cut(wall.strftime("%Y-%m-%d %H:%M:%S"), now_ns=NOW, zone=zone)
    except UsageError:
        assert len(showing) != 1
    else:
        assert isinstance(cut, CutTime)
        assert showing == [datetime.fromtimestamp(cut.utc_ns // NS, UTC)]


@given(st.integers(ns("2000-01-01T00:00:00+00:00"), NOW), st.sampled_from(ZONES))
def test_relative_forms_know_no_zone(now_ns: int, zone: tzinfo) -> None:
    cut = parse_user_cut("-1d2h", now_ns=now_ns, zone=zone)
    assert cut == CutTime(utc_ns=now_ns - 26 * 3600 * NS)
    assert parse_user_cut("now", now_ns=now_ns, zone=zone) == CutTime(utc_ns=now_ns)


def test_an_export_name_takes_no_moving_target() -> None:
    with pytest.raises(UsageError, match="moves on"):
        parse_export_cut("latest")
    assert parse_export_cut("nightly") == CutLabel(label="nightly")


def test_the_zone_of_now_decides_the_day() -> None:
    just_after_midnight = ns("2026-07-02T22:30:00+00:00")
    assert at("00:15", now_ns=just_after_midnight) == "2026-07-02T22:15:00Z"
    minus_five = timezone(timedelta(hours=-5))
    assert at("00:15", now_ns=just_after_midnight, zone=minus_five) == "2026-07-02T05:15:00Z"
