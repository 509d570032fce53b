"""`farshore status`: one line a group, for a person at two in the morning."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer
from msgspec.structs import replace

from console.certificates import certificate_left_days, ending_text
from console.checks import STUCK_HOOK
from console.figures import (
    age_s,
    age_text,
    mode_text,
    position_text,
    short_time_text,
    size_text,
    span_text,
)
from console.link_rates import rate_now_text
from console.local_time import pause
from console.session import Session, session_of
from console.styled import Styled, joined, styled, text
from protocol.commands.backup import BackupInfo
from protocol.commands.base import check_name
from protocol.commands.drill import DrillSummary
from protocol.commands.pair import GroupInfo, LockInfo
from protocol.commands.site import SiteStatus, SiteStatusReply
from protocol.commands.site_cert import ENDS_WARNING_DAYS
from protocol.errors import NotFound
from protocol.limits import CLOCK_SKEW_S

WATCH_INTERVAL_S = 1.0


def status(
    ctx: typer.Context,
    group: Annotated[str | None, typer.Argument(metavar="G", help="Only this group.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until Ctrl-C.")] = False,
) -> None:
    """Every group: its pair's state, how far the peer is behind, its last backup."""
    session = session_of(ctx)
    if group is not None:
        check_name(group, "group")
    if watch and session.output.is_terminal:
        _watch_live(session, group)
    _show(session, group)
    while watch:
        pause(WATCH_INTERVAL_S)
        _show(session, group)


def _ask(session: Session, group: str | None) -> SiteStatusReply:
    data = session.call(SiteStatus())
    if group is None:
        return data
    found = tuple(each for each in data.groups if each.group == group)
    if not found:
        raise NotFound(f"there is no group {group} here", subject=group, next_step="farshore status")
    return replace(data, groups=found)


def _show(session: Session, group: str | None) -> None:
    data = _ask(session, group)
    session.output.result("status", data, lambda: _print(session, data))
    session.output.flush()


def _watch_live(session: Session, group: str | None) -> NoReturn:
    with session.output.live() as draw:
        while True:
            draw(status_lines(session, _ask(session, group)))
            pause(WATCH_INTERVAL_S)


def _print(session: Session, data: SiteStatusReply) -> None:
    for line in status_lines(session, data):
        session.output.line(line)


def status_lines(session: Session, data: SiteStatusReply) -> list[Styled]:
    """The site's line, what is missing in its log, one a peer that is not connected, one a group."""
    lines = [text(f"site {data.site} {data.version}".rstrip(), "bold")]
    lines += [text(f"hook {name}: {STUCK_HOOK}") for name in data.stuck_hooks]
    if data.log_dropped:
        said = session.output.pasted("`farshore events` has what happened")
        lines.append(text(f"log: nobody took {data.log_dropped} lines; {said}"))
    left_days = certificate_left_days(data)
    if left_days is not None and left_days <= ENDS_WARNING_DAYS:
        renewed = session.output.pasted("`farshore site cert init` renews it")
        lines.append(text(f"hosts' TLS: {ending_text(left_days)}; {renewed}"))
    for peer in data.peers:
        if not peer.connected:
            lines.append(text(f"peer {peer.peer} not connected, heard {age_text(peer.heard_s)}"))
        if peer.windows:
            lines.append(text(f"peer {peer.peer} is sent to at {rate_now_text(peer, session.zone)}"))
        if peer.clock_skew_s is not None and abs(peer.clock_skew_s) > CLOCK_SKEW_S:
            word = "ahead" if peer.clock_skew_s > 0 else "behind"
            lines.append(text(f"peer {peer.peer}: its clock is {span_text(abs(peer.clock_skew_s))} {word}"))
    lines += [group_line(session, data, group) for group in data.groups]
    if not data.groups:
        lines.append(text(session.output.pasted("no groups: `farshore volume create G/V --size 10G`")))
    return lines


def group_line(session: Session, data: SiteStatusReply, group: GroupInfo) -> Styled:
    """`vm1 paired (PAIR) async lon→par | head 8f3a:91.2G | behind 1.1 MiB 0.4 s | applied 0.3 s ago | …`."""
    head = text(f"{group.group} ") + styled(group.state) + text(f" ({group.code})")
    for word in (group.role == "detached" and "detached", group.fetching and "fetching"):
        if word:
            head += text(" ") + styled(word)
    for word in (mode_text(group), group.direction or _direction(data, group)):
        if word:
            head += text(f" {word}")
    parts = [head]
    if group.head:
        parts.append(text(f"head {position_text(group.head.timeline, group.head.position)}"))
    if group.peer:
        parts.append(text(f"behind {size_text(group.lag_bytes)} {span_text(group.lag_s)}"))
        if group.resync_left_bytes:
            eta = span_text(group.resync_eta_s)
            parts.append(text(f"{size_text(group.resync_left_bytes)} to copy, {eta}"))
        parts.append(text(f"applied {age_text(group.applied_age_s)}"))
    parts.append(text(f"last backup {_backup(session, data, group.last_backup)}"))
    if group.last_drill:
        parts.append(text(f"drill {_drill(data, group.last_drill)}"))
    if group.oldest_check:
        checked = short_time_text(group.oldest_check, data.time, session.zone)
        parts.append(text(f"all compared since {checked}"))
    if group.damaged:
        mend = session.output.pasted(f"farshore verify {group.group} --repair")
        parts.append(text(f"{group.damaged} places damaged: {mend}", "red"))
    if group.lock:
        parts.append(text(_lock(session, data, group.lock)))
    if group.time_to_full_s is not None:
        parts.append(text(f"journal full in {span_text(group.time_to_full_s)}"))
    if group.reason:
        parts.append(text(group.reason))
    return joined(" | ", parts)


def _direction(data: SiteStatusReply, group: GroupInfo) -> str:
    if not group.peer:
        return ""
    return f"{data.site}→{group.peer}" if group.role == "primary" else f"{group.peer}→{data.site}"


def _lock(session: Session, data: SiteStatusReply, lock: LockInfo) -> str:
    """`locked: last 14.0 d, 3 backups until 2027-01-03 12:00`."""
    words = [f"last {span_text(lock.window_s)}"] if lock.window_s else []
    if lock.backups:
        until = short_time_text(lock.until, data.time, session.zone)
        noun = "backup" if lock.backups == 1 else "backups"
        words.append(f"{lock.backups} {noun} until {until}")
    return f"locked: {', '.join(words)}"


def _drill(data: SiteStatusReply, drill: DrillSummary) -> str:
    """`6 d ago 14 s`, or that it failed."""
    ago = age_text(age_s(drill.started, data.time))
    return f"{ago} {span_text(drill.recovery_s) if drill.ok else 'failed'}"


def _backup(session: Session, data: SiteStatusReply, backup: BackupInfo | None) -> str:
    if backup is None:
        return "never"
    when = short_time_text(backup.time, data.time, session.zone)
    words = sorted(set(backup.state.values()))
    return f"{backup.label or backup.id} {when} {' '.join(words)}".rstrip()
