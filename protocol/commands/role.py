"""Roles: which site writes a group."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Confirm, Reply, WaitSeconds
from protocol.commands.cut import CutInfo
from protocol.commands.pair import PairInfo


class SwitchoverReply(PairInfo, frozen=True, kw_only=True):
    """The pair; `position` is the marker up to which this site wrote."""

    done: bool
    position: CutInfo
    took_ms: float


class Switchover(BaseCommand[SwitchoverReply], frozen=True, tag="switchover"):
    """Hand the writing over to the peer: hosts' doors close, everything drains to a marker, the roles swap.
    Answers when the peer writes, or after `timeout_s` (the hand-over then goes on by itself)."""

    group: Name
    confirm: Confirm = ""
    timeout_s: WaitSeconds = 30.0


class TakeoverReply(Reply, frozen=True, kw_only=True):
    """Where this site goes on (`position`), and what is known of what it lacks; `age_s` of
    `none_lost_until`."""

    group: str
    done: bool
    position: CutInfo
    nothing_lost: bool
    none_lost_until: str | None
    known_lost_bytes: int
    age_s: float | None
    statement: str
    peer: str
    took_ms: float | None


class Takeover(BaseCommand[TakeoverReply], frozen=True, tag="takeover"):
    """Write here from now on because the peer is gone; refused while it answers. `plan` only says what would
    be. Refused while the first copy is on its way, and as unsafe if more than `max_loss_s` would be lost.
    `confirm` is `G`."""

    group: Name
    plan: bool = False
    max_loss_s: Annotated[float, Meta(ge=0)] | None = None
    confirm: Confirm = ""


class FailbackReply(PairInfo, frozen=True, kw_only=True):
    """The pair; where the site that came back left this history, and how much it alone had."""

    fork: CutInfo | None
    tail_bytes: int


class Failback(BaseCommand[FailbackReply], frozen=True, tag="failback"):
    """Prepare the site that came back: it takes this site's history from the fork on, what it alone had
    stays there as a branch. The role moves by switchover."""

    group: Name
