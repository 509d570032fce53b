"""What a takeover would mean: where this site would go on, and what is known of what it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.group.group import Group
from engine.group.site_state import Role
from engine.peering.peer_clocks import PeerClock
from engine.ports.clock import Clock
from protocol.cut_text import time_text
from protocol.errors import NotAllowed, Unsafe, WrongState
from protocol.limits import CLOCK_SKEW_S


class Heard(Protocol):
    """The receiver of a group, as far as a plan needs it."""

    @property
    def peer(self) -> str:
        """Its name."""

    @property
    def remote_written(self) -> int:
        """The position up to which the peer said that it wrote."""

    @property
    def trouble(self) -> str:
        """Why what comes from the peer is not taken in here just now; empty if it is, or nothing comes."""

    @property
    def complete_until_ns(self) -> int:
        """UTC nanoseconds, by the peer's clock, up to which every frame of the peer's is here; 0: unknown."""

    @property
    def complete_since_s(self) -> float | None:
        """When that was heard, monotonic; None if it was before this run."""

    @property
    def peer_clock(self) -> PeerClock:
        """What is known of the peer's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeoverPlan:
    """`nothing_lost`: of what was acknowledged. `until_ns`: nothing up to then is lost; 0: nobody knows, and
    `age_s`, how long ago that was, is None. `known_lost_bytes` of journal are missing for certain. `clock`:
    how far the two clocks are apart, if that is too far."""

    nothing_lost: bool
    until_ns: int
    known_lost_bytes: int
    age_s: float | None
    statement: str
    clock: str = ""


def plan_takeover(group: Group, heard: Heard | None) -> TakeoverPlan:
    """The plan for a group, with its receiver if there is one."""
    known_lost = max(0, heard.remote_written - group.writer.written) if heard else 0
    until = _complete_until_ns(group, heard)
    handed = group.handed_to == group.site
    # Who heard of a newer authority than its journal has may lack what was written by that one.
    newest = group.state.heard(group.name) <= group.generation
    lost = group.turned_back.lost
    safe = known_lost == 0 and newest and lost is None and (handed or group.strict)
    age_s = _age_s(group.clock, heard, until) if until else None
    clock = _clocks_apart(group.clock, heard, until)
    if safe:
        statement = "nothing that was acknowledged is lost"
    elif until:
        statement = f"nothing acknowledged up to {time_text(until)} is lost; later writes may be"
    else:
        statement = "it is not known up to when this site held everything: what the other wrote may be lost"
    if lost is not None:
        until, age_s = 0, None
        statement = (
            f"this site is older than it was: it lacks {lost}, and nobody knows what was written by then"
        )
    if known_lost:
        statement += f"; at least {known_lost} bytes of journal are known to be missing"
    if clock:
        statement += f"; {clock}"
    if heard is not None and heard.trouble:
        statement += f"; {heard.trouble}"
    return TakeoverPlan(
        nothing_lost=safe,
        until_ns=until,
        known_lost_bytes=known_lost,
        age_s=age_s,
        statement=statement,
        clock=clock,
    )


def _age_s(clock: Clock, heard: Heard | None, until: int) -> float | None:
    """How long ago it was `until` by the clock of the site that wrote, at least; None if nobody knows, as
    this site's clock has not come to that time. Taken for 0, a clock that is behind would hide what may be
    lost."""
    passed_s = 0.0
    if heard is not None and heard.complete_since_s is not None:
        passed_s = clock.monotonic() - heard.complete_since_s
    there_ns = heard.peer_clock.utc_ns(clock) if heard is not None else None
    age_s = ((clock.utc_ns() if there_ns is None else there_ns) - until) / 1e9
    if age_s < -CLOCK_SKEW_S and not passed_s:
        return None
    return max(0.0, passed_s, age_s)


def _clocks_apart(clock: Clock, heard: Heard | None, until: int) -> str:
    skew = heard.peer_clock.skew(clock) if heard is not None else None
    if heard is not None and skew is not None and skew.certain_s > CLOCK_SKEW_S:
        return skew.text(heard.peer)
    ahead_s = (until - clock.utc_ns()) / 1e9
    return (
        f"this site's clock is at least {ahead_s:.1f} s behind the other's" if ahead_s > CLOCK_SKEW_S else ""
    )


def _complete_until_ns(group: Group, heard: Heard | None) -> int:
    """Up to when this site held all that its peer wrote; 0 if nothing is known of that. What a receiver heard
    ends with a restart or the pair; frames of the peer's own say of themselves that all before them is here,
    short of what has their very time. A site that handed over wrote everything before that itself."""
    if group.primary:
        return group.head.utc_ns
    until = heard.complete_until_ns if heard else 0
    own = not group.head or group.timelines.get(group.head.timeline).writer == group.site
    return until if own else max(until, group.head.utc_ns - 1)


def require_takeable(group: Group, peer: str, heard: Heard | None = None) -> None:
    """WrongState if the group is written here already, or if nothing of it is here yet."""
    if group.primary and group.handed_to in ("", group.site):
        raise WrongState(
            f"group {group.name} is written here already",
            subject=group.name,
            position=str(group.end),
            next_step=f"`farshore pair show {group.name}`",
        )
    if not group.head and heard is not None and heard.trouble:
        raise WrongState(
            f"nothing of group {group.name} can be read here yet: {heard.trouble}",
            subject=group.name,
            next_step="mend that, make room; the copy then comes to its end by itself, and can be taken over",
        )
    if not group.head:
        raise WrongState(
            f"nothing of group {group.name} can be read here yet: its first copy has not arrived",
            subject=group.name,
            next_step=f"start {peer or 'the site that has it'}, and let the copy come to its end",
        )


def require_gone(group: Group, peer: str, role: str) -> None:
    """NotAllowed while the peer answers with this role, unless it does not write the group either."""
    if role in ("", Role.SECONDARY.value):
        return
    if role == Role.DETACHED.value:
        # An old copy of a site that was opened to hosts, and this one follows.
        raise NotAllowed(
            f"{peer} answers, and hosts there may write group {group.name} (detached)",
            subject=group.name,
            position=str(group.end),
            next_step=f"`farshore takeover {group.name} --site {peer}` goes on with what they wrote; to "
            "go on with this site's history, stop the hosts and the daemon there first",
        )
    raise NotAllowed(
        f"{peer} answers, and writes group {group.name}",
        subject=group.name,
        position=str(group.end),
        next_step=f"`farshore switchover {group.name} --site {peer}` hands it over without loss",
    )


def require_loss_within(plan: TakeoverPlan, group: Group, limit_s: float | None) -> None:
    """Unsafe if writes of a longer time than `limit_s` may be lost; None allows any."""
    age_s = plan.age_s
    if limit_s is None or plan.nothing_lost or (age_s is not None and age_s <= limit_s):
        return
    span = "of an unknown time" if age_s is None else f"of the last {age_s:.1f} s"
    raise Unsafe(
        f"{group.name}: writes {span} may be lost, {limit_s:g} s are allowed"
        + (f" ({plan.clock})" if plan.clock else ""),
        subject=group.name,
        position=str(group.end),
        next_step="allow more with --max-loss, or leave it out",
    )
