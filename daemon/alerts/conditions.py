"""What is wrong now, from figures of a peer, a group or the site.

    peer.silent      a peer of a pair that is not split was not heard for `HEARTBEAT_TIMEOUT_S`
    pair.suspended   the pair stands still by an error, although its peer is heard
    pair.diverged    both sites wrote
    pair.lagging     the peer lacks more than [alerts] allows
    journal.filling  the journal is under pressure, here or at the writer (PFUL)
    backup.missed    the schedule's last slot has no backup, `MISSED_AFTER_S` later
    backup.old       the newest backup is older than [alerts] allows
    drill.old        the same of drills
    drill.missed     a drill of this site's schedule was due `DRILL_MISSED_AFTER_S` ago, and was not run
    disk.filling     little is left of the file system
    cert.ends        the certificate by which hosts know the site ends within `ENDS_WARNING_DAYS`
    cert.ends_soon   the same, within `ENDS_ERROR_DAYS`, or it has ended

Pure: times and figures come in as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from daemon.alerts.limits import AlertLimits
from engine.peering.pair_states import FIELD_CODES, PairState
from engine.retention.pressure import Stage
from protocol.commands.event import Scalar
from protocol.commands.site_cert import ENDS_ERROR_DAYS, ENDS_WARNING_DAYS
from protocol.limits import HEARTBEAT_TIMEOUT_S

MISSED_AFTER_S = 300.0
# A timer looks each hour, and a drill may take hours.
DRILL_MISSED_AFTER_S = 6 * 3600.0
# Of the bytes that are left free for checkpoints: below so many times as much a person is told.
DISK_RESERVES = 4
# How long it must last before it is said: a session that ends and begins anew is nobody's business, and a
# backup that was due while the site was down is taken right after its start.
HOLD_S: Mapping[str, float] = {"pair.suspended": 10.0, "pair.lagging": 3.0, "backup.missed": 60.0}

# What is looked at together, and what may be found there; pairs and copies of one group at a time.
PEERS, PAIR, COPIES, DISK, CERTIFICATE = "peers", "pair", "copies", "disk", "certificate"
KINDS: Mapping[str, str] = {
    "peer.silent": PEERS,
    "pair.suspended": PAIR,
    "pair.diverged": PAIR,
    "pair.lagging": PAIR,
    "journal.filling": PAIR,
    "backup.missed": COPIES,
    "backup.old": COPIES,
    "drill.old": COPIES,
    "drill.missed": COPIES,
    "disk.filling": DISK,
    "cert.ends": CERTIFICATE,
    "cert.ends_soon": CERTIFICATE,
}


def scope_of(what: str, group: str = "") -> str:
    """What is looked at together, as `Standing` knows it."""
    return f"{what} {group}" if group else what


def group_of(scope: str) -> str:
    """The group whose scope it is; empty for one of the site."""
    return scope.partition(" ")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something that is wrong. `fields` are said once, when it is new."""

    kind: str
    group: str = ""
    subject: str = ""
    fields: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """By which it is the same one a second later."""
        return self.kind, self.group, self.subject


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFigures:
    """A peer that something is paired with. `silent_s`: since it was heard, or since somebody waits for it;
    `pairs`: those that are not split."""

    peer: str
    silent_s: float
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFigures:
    """How a group's pair and journal stand."""

    group: str
    peer: str
    state: PairState
    reason: str
    peer_heard: bool
    lag_s: float | None
    lag_bytes: int | None
    stage: Stage
    time_to_full_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFigures:
    """How old a group's copies are, in seconds; None: there is none. `slot_age_s`: of the schedule's newest
    slot that has no backup. `follows`: a drill is expected at the site that does not write. `drill_due_s`:
    for how long one of this site's schedule is due."""

    group: str
    slot_age_s: float | None
    backup_age_s: float | None
    drill_age_s: float | None
    follows: bool
    failure: str = ""
    drill_due_s: float | None = None


def peer_conditions(peer: PeerFigures) -> Iterator[Condition]:
    """Of one peer."""
    if peer.pairs and peer.silent_s > HEARTBEAT_TIMEOUT_S:
        fields = {"silent_s": round(peer.silent_s, 1), "pairs": peer.pairs}
        yield Condition(kind="peer.silent", subject=peer.peer, fields=fields)


def pair_conditions(pair: PairFigures, limits: AlertLimits) -> Iterator[Condition]:
    """Of one group's pair and journal."""
    about: dict[str, Scalar] = {"peer": pair.peer, "code": FIELD_CODES[pair.state], "reason": pair.reason}
    if pair.state is PairState.SUSPENDED and pair.peer_heard:
        yield Condition(kind="pair.suspended", group=pair.group, fields=about)
    if pair.state is PairState.DIVERGED:
        yield Condition(kind="pair.diverged", group=pair.group, fields=about)
    late = limits.max_lag_s and pair.lag_s is not None and pair.lag_s > limits.max_lag_s
    long = limits.max_lag_bytes and pair.lag_bytes is not None and pair.lag_bytes > limits.max_lag_bytes
    # A split is meant.
    if (late or long) and pair.state is not PairState.SPLIT:
        lag: dict[str, Scalar] = {"peer": pair.peer, "lag_s": pair.lag_s, "lag_bytes": pair.lag_bytes}
        yield Condition(kind="pair.lagging", group=pair.group, fields=lag)
    if pair.state is PairState.FILLING or pair.stage is not Stage.NORMAL:
        filling: dict[str, Scalar] = {"stage": pair.stage.value, "time_to_full_s": pair.time_to_full_s}
        yield Condition(kind="journal.filling", group=pair.group, fields=filling)


def copy_conditions(copies: CopyFigures, limits: AlertLimits) -> Iterator[Condition]:
    """Of one group's backups and drills."""
    if copies.slot_age_s is not None and copies.slot_age_s > MISSED_AFTER_S:
        fields: dict[str, Scalar] = {"late_s": round(copies.slot_age_s), "error": copies.failure}
        yield Condition(kind="backup.missed", group=copies.group, fields=fields)
    if _too_old(copies.backup_age_s, limits.max_backup_age_s):
        yield Condition(kind="backup.old", group=copies.group, fields={"age_s": copies.backup_age_s})
    if copies.follows and _too_old(copies.drill_age_s, limits.max_drill_age_s):
        yield Condition(kind="drill.old", group=copies.group, fields={"age_s": copies.drill_age_s})
    if copies.drill_due_s is not None and copies.drill_due_s > DRILL_MISSED_AFTER_S:
        yield Condition(kind="drill.missed", group=copies.group, fields={"late_s": round(copies.drill_due_s)})


def disk_conditions(free_bytes: int, reserve_bytes: int) -> Iterator[Condition]:
    """Of the site's file system."""
    if reserve_bytes and free_bytes < DISK_RESERVES * reserve_bytes:
        yield Condition(
            kind="disk.filling", fields={"free_bytes": free_bytes, "reserve_bytes": reserve_bytes}
        )


def certificate_conditions(left_days: float | None) -> Iterator[Condition]:
    """Of the certificate of the door on TCP; None: there is none in use. Both stand at the end: what began as
    a warning is not over when it is urgent."""
    for kind, limit_days in (("cert.ends", ENDS_WARNING_DAYS), ("cert.ends_soon", ENDS_ERROR_DAYS)):
        if left_days is not None and left_days <= limit_days:
            yield Condition(kind=kind, subject="server", fields={"left_days": round(left_days, 1)})


def _too_old(age_s: float | None, limit_s: float) -> bool:
    return bool(limit_s) and (age_s is None or age_s > limit_s)
