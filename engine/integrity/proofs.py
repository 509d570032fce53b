"""What drills are proof of, and which are due: rows in the site's own store, beside those of `drills`.

    proofs        name\\0u64 UTC ns of the drill's start    row, as `_PROOF` has it
    told_drills   name\\0u64 UTC ns of the drill's start    row, as `_TOLD` has it: drills that a peer told of
    drill_plans   name\\0                                   row, as `_PLAN` has it

They have tables of their own, so that an earlier version reads its own rows as ever. Of each group the newest
`DRILLS_KEPT_MAX` are kept. Every write is durable on return.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from typing import Annotated, Any

from msgspec import Meta

from engine.integrity.drill_rows import NS, drop_old, group_prefix, newest_first, row_key
from engine.integrity.drills import Drill
from engine.ports.store import Store
from protocol.bounds import (
    AnyTimeline,
    CopyId,
    Count,
    LabelOrNone,
    MsOrUnknown,
    Name,
    NameOrNone,
    Position,
    Text,
    UtcNs,
    Word,
)
from protocol.limits import DRILLS_KEPT_MAX
from protocol.positions import Cut
from protocol.proof_limits import DRILL_EVERY_S_MAX, DRILL_EVERY_S_MIN, PROOF_BYTES_MAX
from protocol.rows import pack_row
from protocol.wire import RowType

PROOFS, TOLD, PLANS = "proofs", "told_drills", "drill_plans"
NO_EXIT_CODE = 1 << 20  # the check was not carried out
_Digest = tuple[Name, Word, Count]
_Exit = Annotated[int, Meta(ge=-1024, le=NO_EXIT_CODE)]
_Every = Annotated[int, Meta(ge=DRILL_EVERY_S_MIN, le=DRILL_EVERY_S_MAX)]
_Texts = tuple[Text, ...]
PROOF = RowType(
    tuple[Text, Word, LabelOrNone, CopyId, NameOrNone, Text, Text, _Exit, Text, _Texts, tuple[_Digest, ...]]
)
TOLD_ROW = RowType(
    tuple[Name, AnyTimeline, Position, bool, MsOrUnknown, MsOrUnknown, Text, LabelOrNone, Word, Word, Text]
)
PLAN = RowType(tuple[_Every, Name, _Texts, Text, UtcNs])


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Who gave a drill, Farshore's version there, label and id (0: none) of the backup that its cut was; the
    check's hook, command, user, exit code and output; versions that it named; (volume, digest, bytes)."""

    by: str
    version: str
    label: str
    backup: int
    hook: str
    command: str
    user: str
    exit_code: int
    output: str
    tools: tuple[str, ...]
    digests: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldDrill:
    """A drill as the peer `site` told of it. `digest` is one over those of all volumes; empty: none was
    made."""

    site: str
    timeline: int
    position: int
    ok: bool
    recovery_ms: int
    data_age_ms: int
    by: str
    label: str
    backup: str
    hook: str
    digest: str

    def drill(self, group: str, started_utc_ns: int) -> Drill:
        """As far as it is one of this site's."""
        return Drill(
            group=group,
            started_utc_ns=started_utc_ns,
            volumes=(),
            cut=Cut(self.timeline, self.position),
            cut_utc_ns=0,
            ok=self.ok,
            recovery_ms=max(0, self.recovery_ms),
            data_age_ms=self.data_age_ms,
            steps=(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A group is to be drilled every `every_s`, counted from the last time; the check is a hook with words,
    run as a user (empty: whoever runs the drill)."""

    every_s: int
    hook: str
    args: tuple[str, ...]
    user: str
    set_utc_ns: int

    def due_utc_ns(self, last_utc_ns: int | None, now_utc_ns: int) -> int:
        """When the next is due, if the last one that is not dated ahead of the clock began then; at once if
        there was none since it was set. Set at a time that is yet to come, it was set before anything: the
        clock was ahead then, and went back."""
        set_ns = self.set_utc_ns if self.set_utc_ns <= now_utc_ns else 0
        if last_utc_ns is None or last_utc_ns < set_ns:
            return min(self.set_utc_ns, now_utc_ns)
        return last_utc_ns + self.every_s * 1_000_000_000


def beside_its_drill(proof: Proof) -> dict[str, bytes]:
    """The row that `Drills.add` keeps with a drill of this site, so that no loss of power parts them."""
    return {PROOFS: pack_row(astuple(proof))}


class Proofs:
    """Typed rows over the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, drill: Drill) -> Proof | None:
        """That of a drill at this site; None: it was recorded by an earlier version."""
        with self._store.read() as transaction:
            value = transaction.get(PROOFS, row_key(drill.group, drill.started_utc_ns))
        return None if value is None else Proof(**_named(Proof, PROOF.decode(value, PROOF_BYTES_MAX)))

    def hear(self, group: str, started_utc_ns: int, told: ToldDrill) -> None:
        """What a peer told; once more is fine."""
        with self._store.write() as write:
            write.put(TOLD, row_key(group, started_utc_ns), pack_row(astuple(told)))
        drop_old(self._store, TOLD, group, DRILLS_KEPT_MAX)

    def told(
        self, group: str, limit: int | None = None, before_utc_ns: int | None = None
    ) -> list[tuple[int, ToldDrill]]:
        """When each began, and what the peer told, newest first; those that began before a time, if given."""
        rows = newest_first(self._store, TOLD, group, limit, before_utc_ns)
        return [(started, ToldDrill(**_named(ToldDrill, TOLD_ROW.decode(value)))) for started, value in rows]

    def plan(self, group: str) -> Plan | None:
        """What is due of a group."""
        with self._store.read() as transaction:
            value = transaction.get(PLANS, group_prefix(group))
        return None if value is None else Plan(**_named(Plan, PLAN.decode(value)))

    def set_plan(self, group: str, plan: Plan | None) -> None:
        """Put it in the place of the one that there is, if any; None takes that away."""
        with self._store.write() as write:
            if plan is None:
                write.delete(PLANS, group_prefix(group))
            else:
                write.put(PLANS, group_prefix(group), pack_row(astuple(plan)))


def check_proof(key: bytes, value: bytes) -> None:
    """Whether it is a row of `proofs`, its key without the group. ValueError, struct.error,
    RemoteProtocolError."""
    NS.unpack(key)
    PROOF.decode(value, PROOF_BYTES_MAX)


def check_told(key: bytes, value: bytes) -> None:
    """The same of `told_drills`."""
    NS.unpack(key)
    TOLD_ROW.decode(value)


def check_plan(key: bytes, value: bytes) -> None:
    """The same of `drill_plans`."""
    if key:
        raise ValueError("the key is a group's name")
    PLAN.decode(value)


def _named(kind: type[Proof | ToldDrill | Plan], row: Iterable[object]) -> dict[str, Any]:
    return dict(zip((each.name for each in fields(kind)), row, strict=True))
