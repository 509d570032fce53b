"""Which backups of a group a prune deletes: those that no keep rule keeps.

It looks only at what it may delete. A locked backup stays until its lock ends, a pinned one until it is
unpinned; a labelled one was taken by somebody for a reason, and stays unless it is said otherwise; one that
is not whole here, or not yet, must not push out another. One whose time is yet to come stays until the
clock has come to it: all that were taken since that clock went back have the same time, and a rule by hours
or days would take them for one. None of these takes a place in the counts of the rules.

A backup takes the place of those before it whose volumes it all has: one of a single volume is not instead of
one of the whole group (borg#997), and one of the group is instead of one of a volume in it. So the rules are
asked once for each set of volumes that there is, of the backups that have all of these.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, tzinfo

from engine.copies.copies import Copy, CopyState
from engine.copies.copy_states import state_of
from engine.copies.keep_rules import KeepRules, kept_steps
from engine.group.group import Group
from engine.ports.time_zones import time_zone
from engine.steps import at_once
from protocol.limits import CLOCK_SKEW_S

_LOOKED_AT = frozenset({CopyState.AVAILABLE, CopyState.VERIFIED})


@dataclass(slots=True)
class PrunePlan:
    """Oldest first. `kept` with the rules that keep each, `left` with why no rule looks at it."""

    deleted: list[Copy] = field(default_factory=list)
    kept: list[tuple[Copy, list[str]]] = field(default_factory=list)
    left: list[tuple[Copy, str]] = field(default_factory=list)


def plan_prune(group: Group, rules: KeepRules, *, labelled: bool) -> PrunePlan:
    """What a prune would do now, by periods of the policy's zone. With no rule at all nothing is deleted.
    UsageError if this machine does not know that zone."""
    return at_once(prune_steps(group, rules, labelled=labelled))


def prune_steps(
    group: Group, rules: KeepRules, *, labelled: bool, say_labelled: bool = True
) -> Generator[None, None, PrunePlan]:
    """The same, step by step: let hosts in between two. Without `say_labelled`, labelled backups that are
    left for that are not looked at: whoever prunes after each backup pays for those that it may delete."""
    plan = PrunePlan()
    looked_at: list[Copy] = []
    soon_ns = group.clock.utc_ns() + int(CLOCK_SKEW_S * 1e9)
    all_of_them = labelled or say_labelled
    copies = group.copies.newest(group.spans()) if all_of_them else group.copies.unlabelled(group.spans())
    for copy in copies:
        yield
        why = _left(group, copy, labelled=labelled) if any(rules) else "no keep rules"
        if not why and any(rules[1:]) and copy.utc_ns > soon_ns:
            why = "dated ahead of the clock"
        if why:
            plan.left.append((copy, why))
        else:
            looked_at.append(copy)
    looked_at.reverse()
    plan.left.reverse()
    reasons = yield from _reasons(looked_at, rules, zone_of(group))
    for copy in looked_at:
        yield
        if copy.id in reasons:
            plan.kept.append((copy, reasons[copy.id]))
        else:
            plan.deleted.append(copy)
    return plan


def zone_of(group: Group) -> tzinfo:
    """That of the periods of a group's keep rules. UsageError."""
    zone = group.policies.at(group.spans())[1].keep_zone
    return time_zone(zone) if zone else UTC


def _reasons(
    copies: list[Copy], rules: KeepRules, zone: tzinfo
) -> Generator[None, None, dict[int, list[str]]]:
    """By id, the rules that keep a backup for some set of volumes; each once."""
    held: list[tuple[frozenset[int], tuple[int, int]]] = []
    for copy in copies:
        held.append((frozenset(copy.volumes), (copy.utc_ns, copy.id)))
        yield
    found: dict[int, dict[str, None]] = {}
    for scope in {volumes for volumes, _ in held}:
        backups = [backup for volumes, backup in held if volumes >= scope]
        reasons = yield from kept_steps(backups, rules, zone)
        for copy_id, why in reasons.items():
            found.setdefault(copy_id, {}).update(dict.fromkeys(why))
    return {copy_id: list(why) for copy_id, why in found.items()}


def _left(group: Group, copy: Copy, *, labelled: bool) -> str:
    if group.lock.locked(copy.id):
        return "locked"
    if copy.pinned:
        return "pinned"
    if copy.label and not labelled:
        return "labelled"
    state = state_of(group, copy)
    return "" if state in _LOOKED_AT else state.value.lower()
