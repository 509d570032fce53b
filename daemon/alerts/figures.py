"""Figures of a running site for `daemon.alerts.conditions`. None of them costs more than a few reads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from daemon.alerts.conditions import CopyFigures, PairFigures, PeerFigures
from daemon.operations.group_row import lag_of, pair_state
from daemon.operations.schedule import last_run
from daemon.site import Site
from engine.copies.schedules import due
from engine.group.group import Group
from engine.group.site_state import Role
from engine.integrity.drills import Drill
from engine.peering.pair_states import PairState
from protocol.commands.site_cert import DAY_S
from protocol.errors import UsageError
from protocol.limits import CLOCK_SKEW_S
from site_primary.shipping.comparison import NOT_COMPARED

NS_PER_S = 1e9


def peer_figures(site: Site, waiting_since: Mapping[str, float]) -> list[PeerFigures]:
    """Every peer that a group is paired with. `waiting_since`: monotonic, for those not heard yet."""
    now_s = site.clock.monotonic()
    pairs: dict[str, int] = {}
    heard: dict[str, float] = {}
    for name, end in site.pairs.ends():
        disowned = name in site.receivers and site.receivers[name].disowned  # its own alert says so
        pairs[end.peer] = pairs.get(end.peer, 0) + (end.state is not PairState.SPLIT and not disowned)
        since = end.heard_at if end.heard_at is not None else waiting_since.get(end.peer, now_s)
        heard[end.peer] = max(heard.get(end.peer, since), since)
    return [
        PeerFigures(peer=peer, silent_s=now_s - heard[peer], pairs=count)
        for peer, count in sorted(pairs.items())
    ]


def pair_figures(site: Site, group: Group, silent: frozenset[str]) -> PairFigures:
    """A group's pair and journal; `silent`: peers that are."""
    state, _, reason = pair_state(site, group)
    lag_bytes, lag_s = lag_of(site, group)
    shipper = site.shippers.get(group.name)
    if shipper is not None and shipper.compared is NOT_COMPARED:
        # Not since this start: the peer may well have all of it. If it does not come, it is silent.
        lag_bytes = lag_s = None
    peer, pressure = site.peer_of(group.name), group.space.pressure
    return PairFigures(
        group=group.name,
        peer=peer,
        state=state,
        reason=reason,
        peer_heard=peer not in silent,
        lag_s=lag_s,
        lag_bytes=lag_bytes,
        stage=pressure.stage,
        time_to_full_s=pressure.time_to_full_s,
    )


def copy_figures(site: Site, group: Group) -> CopyFigures:
    """A group's backups and drills. Both sites know its schedule and its backups: the one that follows says
    what was missed when the other cannot."""
    now_ns = site.clock.utc_ns()
    set_ns, policy = group.policies.at(group.spans())
    run, drill = last_run(group), site.drills.last(group.name, now_ns)
    slot_ns = None
    with suppress(UsageError):  # a cron line that this site cannot read: `failure` says so
        slot_ns = due(policy, set_ns, run.utc_ns if run else 0, now_ns)
    if not group.volumes.at(group.spans()):
        slot_ns = None  # nothing to take
    return CopyFigures(
        group=group.name,
        slot_age_s=None if slot_ns is None else (now_ns - slot_ns) / NS_PER_S,
        backup_age_s=backup_age_s(group, now_ns),
        drill_age_s=drill_age_s(drill, now_ns),
        follows=site.state.group(group.name).role is Role.SECONDARY,
        failure=site.schedule_failures.get(group.name, ""),
        drill_due_s=_drill_due_s(site, group.name, drill, now_ns),
    )


def _drill_due_s(site: Site, group: str, last: Drill | None, now_ns: int) -> float | None:
    plan = site.proofs.plan(group)
    due_ns = None if plan is None else plan.due_utc_ns(last.started_utc_ns if last else None, now_ns)
    return None if due_ns is None or due_ns > now_ns else _age_s(due_ns, now_ns)


def backup_age_s(group: Group, now_ns: int) -> float | None:
    """How old the newest of a group's backups is; None: there is none, or nobody knows, as it is dated ahead
    of the clock."""
    newest = next(group.copies.newest(group.spans()), None)
    if newest is None or newest.utc_ns - now_ns > CLOCK_SKEW_S * NS_PER_S:
        return None
    return _age_s(newest.utc_ns, now_ns)


def drill_age_s(drill: Drill | None, now_ns: int) -> float | None:
    """How long ago a group's last drill (`Drills.last`) began."""
    return _age_s(drill.started_utc_ns, now_ns) if drill else None


def certificate_left_days(site: Site) -> float | None:
    """How long that certificate is good by which hosts on TCP know the site; not above 0 once it has ended.
    None: none is in use."""
    end_ns = site.nbd.tcp.end_in_use_ns(site.nbd_addresses)
    return None if end_ns is None else (end_ns - site.clock.utc_ns()) / NS_PER_S / DAY_S


def _age_s(utc_ns: int, now_ns: int) -> float:
    """Clocks may go back."""
    return max(0.0, (now_ns - utc_ns) / NS_PER_S)
