"""Cuts as users name them: text in, a typed name out, which a site resolves to a `positions.Cut`.

Forms: a backup's id (16 hex digits) or label, `TIMELINE:POSITION` (16 hex digits, decimal), an RFC 3339 time,
`latest`; and, for the client only, `now`, relative `-2h30m`, `10 minutes ago`, and local `02:45`,
`yesterday 14:00`, `2026-03-29 14:00`; `yesterday` or `2026-03-29` alone is the end of that day. Relative and
local forms become a fixed UTC time here, once, as a pure function of (text, now, zone): a name that means
another moment each time it is read must not reach a site.

What has the shape of an id is an id, so no label may be 16 hex digits. A local time that the clocks show
twice (or skip) is refused with both readings: guessing would restore another hour than was asked for.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo

import msgspec

from protocol.errors import UsageError
from protocol.limits import LABEL_CHARS_MAX, UTC_NS_MAX
from protocol.positions import POSITION_MAX, Cut, parse_cut
from protocol.quantities import SPAN_PATTERN, span_s

CUT_CHARS_MAX = 128
TIMELINE_MAX = (1 << 64) - 1
NS_PER_S = 1_000_000_000

RESERVED_LABELS = frozenset({"now", "latest", "today", "yesterday"})
FORMS = "a label or backup id, TIMELINE:POSITION, an RFC 3339 time, `latest`"
CLIENT_FORMS = (
    FORMS
    + ", `now`, `-2h30m`, `10 minutes ago`, `02:45`, `yesterday 14:00`, `2026-03-29 14:00`, `2026-03-29`"
)

_LABEL = re.compile(rf"[a-z][a-z0-9._-]{{0,{LABEL_CHARS_MAX - 1}}}")
_BACKUP_ID = re.compile(r"[0-9a-f]{16}")
_POSITION = re.compile(r"[0-9a-f]{16}:[0-9]+", re.ASCII)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)
_RELATIVE = re.compile(rf"-{SPAN_PATTERN}", re.ASCII | re.IGNORECASE)
_AGO = re.compile(rf"{SPAN_PATTERN}\s?ago", re.ASCII | re.IGNORECASE)
_ONE = re.compile(r"an?(?= )", re.ASCII | re.IGNORECASE)
_LOCAL = re.compile(
    r"(?:(today|yesterday|\d{4}-\d\d-\d\d)[ Tt])?(\d{1,2}):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?", re.ASCII
)
_DAY = re.compile(r"yesterday|\d{4}-\d\d-\d\d", re.ASCII)


class _CutStruct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="by"):
    """Base of every form of a cut; `by` tells them apart on the wire."""


class CutLabel(_CutStruct, frozen=True, tag="label"):
    """The cut of the backup with this label."""

    label: str

    def __post_init__(self) -> None:
        if not is_label(self.label):
            raise ValueError(f"not a label: {self.label!r}")


class CutBackup(_CutStruct, frozen=True, tag="backup"):
    """The cut of the backup with this id, 16 lower-case hex digits."""

    backup_id: str

    def __post_init__(self) -> None:
        if not _BACKUP_ID.fullmatch(self.backup_id):
            raise ValueError(f"not a backup id: {self.backup_id!r}")


class CutTime(_CutStruct, frozen=True, tag="time"):
    """The last frame at or before this time, nanoseconds since the epoch, UTC."""

    utc_ns: int

    def __post_init__(self) -> None:
        if not 0 <= self.utc_ns <= UTC_NS_MAX:
            raise ValueError("time is not between 1970 and 2262-04-11T23:47:16Z")


class CutPosition(_CutStruct, frozen=True, tag="position"):
    """A frame boundary: a timeline's 64-bit id and a byte offset in it."""

    timeline: int
    position: int

    def __post_init__(self) -> None:
        if not (0 <= self.timeline <= TIMELINE_MAX and 0 <= self.position <= POSITION_MAX):
            raise ValueError("timeline or position out of range")

    @property
    def cut(self) -> Cut:
        """The same in the engine's terms."""
        return Cut(self.timeline, self.position)


class CutLatest(_CutStruct, frozen=True, tag="latest"):
    """The newest consistent cut that the asked site holds, whatever its time."""


NamedCut = CutLabel | CutBackup | CutTime | CutPosition | CutLatest


def is_label(text: str) -> bool:
    """True for a name that a backup may carry: the label pattern, no reserved word, not shaped like an id."""
    return (
        _LABEL.fullmatch(text) is not None
        and text not in RESERVED_LABELS
        and _BACKUP_ID.fullmatch(text) is None
    )


def check_label(text: str) -> str:
    """The label as it is. Raises UsageError saying what is wrong with it."""
    if is_label(text):
        return text
    why = (
        "is a reserved word"
        if text in RESERVED_LABELS
        else "has the shape of a backup id"
        if _BACKUP_ID.fullmatch(text)
        else f"must match [a-z][a-z0-9._-]* with at most {LABEL_CHARS_MAX} characters"
    )
    raise UsageError(f"label {text!r} {why}", subject=text, next_step="choose another label")


def parse_fixed_cut(text: str) -> NamedCut:
    """A cut from a form that means the same whoever reads it and whenever: the only ones a site reads.

    Raises UsageError for anything else, `now`, relative and local forms included.
    """
    cut = _fixed(text)
    if cut is None:
        raise _refused(text, "is no fixed form of a cut", f"use {FORMS}")
    return cut


def parse_export_cut(text: str) -> NamedCut:
    """A cut from an NBD export name, after the `@`.

    `latest` is refused too: two connections of one client would open it at two positions.
    """
    cut = parse_fixed_cut(text)
    if isinstance(cut, CutLatest):
        raise _refused(
            text, "moves on between two connections", "name the position: `farshore volume uri G/V@CUT`"
        )
    return cut


def parse_user_cut(text: str, *, now_ns: int, zone: tzinfo) -> NamedCut:
    """A cut from any form that a user may write. `now_ns` is UTC; local forms are read in `zone`.

    Raises UsageError for text of no known form, a time in the future, and a local time that the clocks of
    `zone` showed twice or never.
    """
    cut = _fixed(text)
    if cut is not None:
        return cut
    if text == "now":
        return CutTime(utc_ns=now_ns)
    if match := _RELATIVE.fullmatch(text) or _AGO.fullmatch(_ONE.sub("1", text, count=1)):
        return CutTime(utc_ns=_relative_ns(text, match, now_ns))
    if _DAY.fullmatch(text):
        return CutTime(utc_ns=_day_ns(text, now_ns, zone))
    if match := _LOCAL.fullmatch(text):
        return CutTime(utc_ns=_local_ns(text, match, now_ns, zone))
    raise _refused(text, "is no cut", f"use {CLIENT_FORMS}")


def cut_text(cut: NamedCut) -> str:
    """The fixed text of a cut; `parse_fixed_cut` gives the same cut back."""
    match cut:
        case CutLabel(label=label):
            return label
        case CutBackup(backup_id=backup_id):
            return backup_id
        case CutTime(utc_ns=utc_ns):
            return time_text(utc_ns)
        case CutPosition():
            return str(cut.cut)
        case CutLatest():
            return "latest"


def time_text(utc_ns: int) -> str:
    """RFC 3339 in UTC with as many decimals as are not zero, in threes: exact, so that it parses back."""
    seconds, fraction_ns = divmod(utc_ns, NS_PER_S)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction_ns:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{whole}.{digits}Z" if digits else f"{whole}Z"


def _fixed(text: str) -> NamedCut | None:
    """The cut, or None when the text has none of the fixed forms."""
    if len(text) > CUT_CHARS_MAX:
        raise _refused(text[:32] + "…", "is too long for a cut", f"use {CLIENT_FORMS}")
    if text == "latest":
        return CutLatest()
    if _BACKUP_ID.fullmatch(text):
        return CutBackup(backup_id=text)
    if is_label(text):
        return CutLabel(label=text)
    if _POSITION.fullmatch(text):
        whole = parse_cut(text)
        return CutPosition(timeline=whole.timeline, position=whole.position)
    if match := _RFC3339.fullmatch(text):
        return CutTime(utc_ns=_rfc3339_ns(text, match))
    return None


def _rfc3339_ns(text: str, match: re.Match[str]) -> int:
    day, clock, decimals, _utc, sign, hours, minutes = match.groups()
    try:
        whole = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC)
        if hours is not None:
            if int(hours) > 23 or int(minutes) > 59:
                raise ValueError("offset")
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            whole = whole - offset if sign == "+" else whole + offset
    except (ValueError, OverflowError):
        raise _refused(
            text, "is no date and time of the calendar", "write it as 2026-03-29T02:45:00Z"
        ) from None
    return _checked_ns(text, _epoch_ns(whole) + _decimals_ns(decimals))


def _relative_ns(text: str, match: re.Match[str], now_ns: int) -> int:
    *whole, decimals = match.groups()
    return _checked_ns(text, now_ns - span_s(whole) * NS_PER_S - _decimals_ns(decimals))


def _day_ns(text: str, now_ns: int, zone: tzinfo) -> int:
    """The last nanosecond of a day: what there was when it ended."""
    today = _today(now_ns, zone)
    try:
        following = _day(text, today) + timedelta(days=1)
        utc_ns = _epoch_ns(_local_moment(text, datetime.combine(following, time()), zone)) - 1
    except (ValueError, OverflowError):
        raise _refused(text, "is no day of the calendar", "write it as 2026-03-29") from None
    if utc_ns > now_ns:
        raise _refused(text, "is not over yet", "write `now`, or a time of the day: 14:00")
    return _checked_ns(text, utc_ns)


def _local_ns(text: str, match: re.Match[str], now_ns: int, zone: tzinfo) -> int:
    day_word, hour, minute, second, decimals = match.groups()
    try:
        clock = time(int(hour), int(minute), int(second or 0))
        day = _day(day_word, _today(now_ns, zone))
        utc_ns = _epoch_ns(_local_moment(text, datetime.combine(day, clock), zone)) + _decimals_ns(decimals)
    except (ValueError, OverflowError):
        raise _refused(text, "is no time of the day", "write it as 02:45 or yesterday 14:00") from None
    if utc_ns > now_ns:
        hint = "write `yesterday " + text + "`" if day_word is None else "choose a time in the past"
        raise _refused(text, f"is in the future ({time_text(utc_ns)})", hint)
    return _checked_ns(text, utc_ns)


def _today(now_ns: int, zone: tzinfo) -> date:
    return datetime.fromtimestamp(now_ns // NS_PER_S, UTC).astimezone(zone).date()


def _day(word: str | None, today: date) -> date:
    if word is None or word == "today":
        return today
    if word == "yesterday":
        return today - timedelta(days=1)
    return date.fromisoformat(word)


def _local_moment(text: str, wall: datetime, zone: tzinfo) -> datetime:
    """The one moment at which clocks in `zone` show `wall`; refused when there are two or none.

    PEP 495: `fold` changes the offset exactly around a shift. Clocks set back: the first reading has the
    larger offset. Clocks set forward: the smaller one, and no moment shows this time at all.
    """
    first = wall.replace(tzinfo=zone, fold=0)
    second = wall.replace(tzinfo=zone, fold=1)
    first_offset, second_offset = first.utcoffset(), second.utcoffset()
    if first_offset is None or second_offset is None:
        raise ValueError("the zone has no offsets")
    if first_offset == second_offset:
        return first.astimezone(UTC)
    if first_offset < second_offset:
        raise _refused(text, "does not exist: clocks were set forward over it", "choose another time")
    earlier, later = (time_text(_epoch_ns(each)) for each in (first, second))
    raise _refused(text, f"happened twice: {earlier} and {later}", "name one of them in UTC")


def _epoch_ns(moment: datetime) -> int:
    """Exact: a float's 53 bits do not hold today's nanoseconds."""
    span = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (span.days * 86_400 + span.seconds) * NS_PER_S + span.microseconds * 1_000


def _decimals_ns(decimals: str | None) -> int:
    return int((decimals or "").ljust(9, "0"))


def _checked_ns(text: str, utc_ns: int) -> int:
    """No frame is of a later time than a message can name: the end of it means the same cut."""
    if utc_ns < 0:
        raise _refused(text, "is before 1970", "choose another time")
    return min(utc_ns, UTC_NS_MAX)


def _refused(text: str, why: str, next_step: str) -> UsageError:
    return UsageError(f"{text!r} {why}", subject=text, next_step=next_step)
