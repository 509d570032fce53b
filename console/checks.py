"""What a monitor is told of a site: lines with a state of four, and figures. Pure.

What was not tested is not OK: a group without a pair has no lag to check, so asking for it is UNKNOWN; no
group at all is UNKNOWN; no backup and no drill are too old for every limit.

The daemon's alerts have rules of their own (daemon/alerts/conditions.py): they say once what has become
wrong, by the limits of site.toml. Here is said what is not right now, a split that is meant included, by the
limits of whoever asks, and of drills only one that succeeded counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from console.certificates import certificate_left_days, ending_text
from console.figures import age_s, span_text
from protocol.commands.base import Reply
from protocol.commands.pair import GroupInfo
from protocol.commands.peer import PeerInfo
from protocol.commands.schedule import ScheduleInfo
from protocol.commands.site import SiteStatusReply
from protocol.commands.site_cert import DAY_S, ENDS_ERROR_DAYS, ENDS_WARNING_DAYS
from protocol.limits import CLOCK_SKEW_S

StateWord = Literal["OK", "WARNING", "CRITICAL", "UNKNOWN"]


class State(IntEnum):
    """As monitoring plugins end."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


WORDS: dict[State, StateWord] = {
    State.OK: "OK",
    State.WARNING: "WARNING",
    State.CRITICAL: "CRITICAL",
    State.UNKNOWN: "UNKNOWN",
}
_BY_WEIGHT = (State.OK, State.UNKNOWN, State.WARNING, State.CRITICAL)
# By the field's codes. A pair that is split or copied again protects nobody until it is paired.
_PAIR_STATES = {
    "PSUE": State.CRITICAL,
    "PFUL": State.WARNING,
    "PSUS": State.WARNING,
    "SSUS": State.WARNING,
    "SSWS": State.WARNING,
    "COPY": State.WARNING,
}
_PRESSURE = {
    "warning": State.WARNING,
    "throttle": State.WARNING,
    "detach": State.CRITICAL,
    "full": State.CRITICAL,
}
STUCK_HOOK = "the thaw failed, hosts may be frozen: thaw them by hand, then remove its note in frozen/"
_BAD_COPIES = ("damaged", "expired")


class CheckLine(Reply, frozen=True, kw_only=True):
    """One thing that was looked at: of a group, or of a peer. `value` and `limit` where it is a figure."""

    state: StateWord
    check: str
    object: str
    text: str
    value: float | None = None
    limit: float | None = None


class CheckReply(Reply, frozen=True, kw_only=True):
    """The worst state of all, and each line. `exit_code` is that of the command: 0 OK, 1 WARNING, 2 CRITICAL,
    3 UNKNOWN."""

    state: StateWord
    exit_code: int
    checks: list[CheckLine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an operator asked for, in seconds; None: not that."""

    lag_s: float | None = None
    backup_age_s: float | None = None
    drill_age_s: float | None = None


def worst(states: Sequence[State]) -> State:
    """Of these; nothing was tested if there are none."""
    return max(states, key=_BY_WEIGHT.index, default=State.UNKNOWN)


def reply_of(lines: Sequence[CheckLine]) -> CheckReply:
    """The lines, with the worst of them."""
    state = worst([State[line.state] for line in lines])
    return CheckReply(state=WORDS[state], exit_code=int(state), checks=list(lines))


def line(state: State, check: str, subject: str, text: str, **figures: float | None) -> CheckLine:
    """A line."""
    return CheckLine(state=WORDS[state], check=check, object=subject, text=text, **figures)


def check_lines(
    status: SiteStatusReply, schedules: Sequence[ScheduleInfo], group: str | None, limits: Limits
) -> list[CheckLine]:
    """Every line about a site, or about one of its groups."""
    groups = [each for each in status.groups if group in (None, each.group)]
    if not groups:
        subject = group or status.site
        what = f"there is no group {group} here" if group else "no groups: there is nothing to check"
        return [line(State.UNKNOWN, "groups", subject, what)]
    found = [] if group else list(_certificate(status))
    # Also where one group is looked at: whose hosts they are nobody knows for sure.
    found += [line(State.CRITICAL, "hook", name, STUCK_HOOK) for name in status.stuck_hooks]
    found += [_peer(peer, groups) for peer in status.peers if any(each.peer == peer.peer for each in groups)]
    failures = {each.group: each.failure for each in schedules if each.failure}
    for each in groups:
        found += _group(each, status, limits)
        if failure := failures.get(each.group):
            found.append(line(State.WARNING, "schedule", each.group, f"the last scheduled backup: {failure}"))
    return found


def _peer(peer: PeerInfo, groups: Sequence[GroupInfo]) -> CheckLine:
    """Whether it is heard; one of which everything is split need not be."""
    if peer.connected:
        return line(State.OK, "peer", peer.peer, "heard", value=peer.heard_s)
    needed = any(each.peer == peer.peer and each.code not in ("PSUS", "SSUS") for each in groups)
    heard = "never" if peer.heard_s is None else f"{span_text(peer.heard_s)} ago"
    state = State.CRITICAL if needed else State.OK
    return line(state, "peer", peer.peer, f"silent, heard {heard}", value=peer.heard_s)


def _certificate(status: SiteStatusReply) -> Iterator[CheckLine]:
    """How long hosts on TCP take the site for what it is."""
    left_days = certificate_left_days(status)
    if left_days is not None:
        soon = State.CRITICAL if left_days <= ENDS_ERROR_DAYS else State.WARNING
        state = soon if left_days <= ENDS_WARNING_DAYS else State.OK
        said = ending_text(left_days) + (": `farshore site cert init`" if state is not State.OK else "")
        yield line(state, "certificate", status.site, said, value=round(left_days * DAY_S))


def _group(group: GroupInfo, status: SiteStatusReply, limits: Limits) -> Iterator[CheckLine]:
    name = group.group
    if group.state == "damaged" or group.role is None:
        yield line(State.CRITICAL, "state", name, f"damaged: {group.reason}")
        return
    yield _state(group)
    if group.damaged:
        text = f"{group.damaged} places damaged: `farshore verify {name} --repair`"
        yield line(State.CRITICAL, "damage", name, text, value=float(group.damaged))
    if state := _PRESSURE.get(group.journal_pressure or ""):
        full = f", full in {span_text(group.time_to_full_s)}" if group.time_to_full_s is not None else ""
        yield line(state, "journal", name, f"pressure {group.journal_pressure}{full}")
    if limits.lag_s is not None:
        yield _lag(group, limits.lag_s)
    backup = group.last_backup
    here = backup.state.get(status.site, "").lower() if backup else ""
    if here in _BAD_COPIES and backup:
        yield line(State.CRITICAL, "backup", name, f"the last backup {backup.id} is {here} here")
    if limits.backup_age_s is not None:
        time = backup.time if backup and here != "pending" else None
        yield _age("backup-age", name, "backup", time, status.time, limits.backup_age_s)
    drill = group.last_drill
    if drill and not drill.ok:
        yield line(State.WARNING, "drill", name, f"the last drill {drill.drill} failed")
    if limits.drill_age_s is not None:
        time = drill.started if drill and drill.ok else None
        # Of an earlier one nothing is known here.
        what = "drill that succeeded" if drill is None or drill.ok else "drill since the one that failed"
        yield _age("drill-age", name, what, time, status.time, limits.drill_age_s)


def _state(group: GroupInfo) -> CheckLine:
    """The pair's; whether hosts are served; whether the mode is in force."""
    words = f"{group.state} ({group.code})" + (f": {group.reason}" if group.reason else "")
    state = State.CRITICAL if group.state == "diverged" else _PAIR_STATES.get(group.code, State.OK)
    if group.reason and state is State.OK:
        state = State.CRITICAL  # it says why hosts' writes wait or are refused
    if group.fallen_back and state is State.OK:
        state, words = State.WARNING, f"{words}, {group.mode} is not in force"
    if group.fetching and state is State.OK:
        state, words = State.WARNING, f"{words}, takes the peer's history in"
    return line(state, "state", group.group, words)


def _lag(group: GroupInfo, limit_s: float) -> CheckLine:
    if not group.peer:
        return line(State.UNKNOWN, "lag", group.group, "it has no pair, so no lag was checked", limit=limit_s)
    if group.lag_s is None:
        return line(State.UNKNOWN, "lag", group.group, "how far the peer is behind is unknown", limit=limit_s)
    late = group.lag_s > limit_s
    text = f"behind {span_text(group.lag_s)}" + (f", more than {span_text(limit_s)}" if late else "")
    state = State.CRITICAL if late else State.OK
    return line(state, "lag", group.group, text, value=group.lag_s, limit=limit_s)


def _age(check: str, name: str, what: str, time: str | None, now: str, limit_s: float) -> CheckLine:
    ahead_s, old_s = age_s(now, time), age_s(time, now)
    if old_s is None or ahead_s is None:
        return line(State.CRITICAL, check, name, f"there is no {what}", limit=limit_s)
    if ahead_s > CLOCK_SKEW_S:
        text = (
            f"the last {what} is dated {span_text(ahead_s)} ahead of the clock: how old it is, is not known"
        )
        return line(State.UNKNOWN, check, name, text, limit=limit_s)
    late = old_s > limit_s
    text = f"the last {what} is {span_text(old_s)} old" + (
        f", more than {span_text(limit_s)}" if late else ""
    )
    return line(State.CRITICAL if late else State.OK, check, name, text, value=old_s, limit=limit_s)


def plugin_text(reply: CheckReply, subject: str) -> str:
    """As monitoring plugins say it: one line with the figures behind a bar, then each line that is not OK."""
    bad = [each for each in reply.checks if each.state != "OK"]
    said = "; ".join(f"{each.object}: {each.text}" for each in bad) or f"{len(reply.checks)} checks"
    figures = " ".join(_figure(each) for each in reply.checks if each.value is not None)
    first = f"FARSHORE {reply.state} - {subject}: {_plain(said)}" + (f" | {figures}" if figures else "")
    return "\n".join(
        [first, *(f"{each.state} {each.check} {each.object}: {_plain(each.text)}" for each in bad)]
    )


def _plain(text: str) -> str:
    """A bar would begin the figures, a line's end another line."""
    return " ".join(text.replace("|", "/").split())


def _figure(each: CheckLine) -> str:
    """`'vm1 lag'=0.4s;;30`."""
    unit = "" if each.check == "damage" else "s"
    limit = f";;{each.limit:g}" if each.limit is not None else ""
    return f"'{each.object} {each.check}'={each.value or 0:g}{unit}{limit}"
