"""Drills as replies have them: of this site, with all that it recorded, and as far as a peer told of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import product
from typing import Annotated, NamedTuple

from msgspec import Meta

from daemon.operations.shapes import cut_info, extended
from daemon.site import Site
from engine.integrity.drills import Drill
from engine.integrity.proofs import NO_EXIT_CODE, Proof, ToldDrill
from protocol.commands.base import ROWS_MAX
from protocol.commands.drill import DrillInfo, DrillSummary, ProofInfo, StepInfo, VolumeProof
from protocol.cut_text import time_text
from protocol.limits import CLOCK_SKEW_S


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDrill:
    """A drill that this site knows; `told`: by its peer, which ran it."""

    drill: Drill
    told: ToldDrill | None = None


class DrillPlace(NamedTuple):
    """Newest first, then by group, those of this site before what its peer told. `left`: how many more were
    asked for."""

    negative_ns: Annotated[int, Meta(gt=-(1 << 62), le=0)]
    group: str
    told: bool
    left: Annotated[int, Meta(ge=0, lt=ROWS_MAX)]


def last_drill(site: Site, group: str) -> KnownDrill | None:
    """A group's newest; one that is dated ahead of the clock, here or at the peer, only if there is no
    other."""
    soon_ns = site.clock.utc_ns() + int(CLOCK_SKEW_S * 1e9)
    for before_ns in (soon_ns, None):
        known = (_newest(site, group, told, before_ns) for told in (False, True))
        if found := list(filter(None, known)):
            return max(found, key=lambda each: each.drill.started_utc_ns)
    return None


def _newest(site: Site, group: str, told: bool, before_utc_ns: int | None) -> KnownDrill | None:
    """Of those that were run here, or that a peer told of; only such as began before a time, if one is
    given. No two of either began at the same time."""
    if not told:
        return next((KnownDrill(drill=each) for each in site.drills.of(group, 1, before_utc_ns)), None)
    rows = site.proofs.told(group, 1, before_utc_ns)
    return next((KnownDrill(drill=row.drill(group, started), told=row) for started, row in rows), None)


def newest_first(
    site: Site, names: list[str], start: DrillPlace | None, limit: int
) -> Iterator[tuple[DrillPlace, KnownDrill]]:
    """At most `limit` drills beyond `start`, read one by one: a thousand of each group are kept."""
    waiting: list[tuple[int, str, bool, KnownDrill]] = []

    def take(name: str, told: bool, before_utc_ns: int | None) -> None:
        known = _newest(site, name, told, before_utc_ns)
        if known is not None:
            heappush(waiting, (-known.drill.started_utc_ns, name, told, known))

    for each in product(names, (False, True)):
        # Of drills that began at the same time, those up to this place have come.
        take(*each, None if start is None else -start.negative_ns + (each > (start.group, start.told)))
    while waiting and limit:
        limit -= 1
        negative_ns, name, told, known = heappop(waiting)
        yield DrillPlace(negative_ns, name, told, limit), known
        take(name, told, known.drill.started_utc_ns)


def drill_summary(site: Site, known: KnownDrill) -> DrillSummary:
    """A drill without its steps."""
    drill = known.drill
    return DrillSummary(
        drill=f"{drill.started_utc_ns:016x}",
        group=drill.group,
        site=known.told.site if known.told else site.config.name,
        volumes=list(drill.volumes),
        cut=cut_info(drill.cut, drill.cut_utc_ns),
        started=time_text(drill.started_utc_ns),
        ok=drill.ok,
        recovery_s=drill.recovery_ms / 1e3,
        data_age_s=drill.data_age_ms / 1e3 if drill.data_age_ms >= 0 else None,
    )


def drill_info(site: Site, known: KnownDrill) -> DrillInfo:
    """A drill."""
    steps = [
        StepInfo(
            volume=step.volume,
            step=step.step,
            state=step.state,
            took_s=step.took_ms / 1e3,
            said=step.said,
        )
        for step in known.drill.steps
    ]
    return extended(DrillInfo, drill_summary(site, known), steps=steps, proof=proof_info(site, known))


def proof_info(site: Site, known: KnownDrill) -> ProofInfo | None:
    """What it is proof of; None: it was recorded by an earlier version."""
    if known.told is not None:
        return _told_proof(known.told)
    proof = site.proofs.of(known.drill)
    if proof is None:
        return None
    return ProofInfo(
        by=proof.by,
        version=proof.version,
        backup=proof.label,
        backup_id=f"{proof.backup:016x}" if proof.backup else "",
        hook=proof.hook,
        command=proof.command,
        user=proof.user,
        exit_code=None if proof.exit_code == NO_EXIT_CODE else proof.exit_code,
        output=proof.output,
        tools=list(proof.tools),
        digests=[
            VolumeProof(volume=name, size_bytes=size_bytes, digest=digest)
            for name, digest, size_bytes in proof.digests
        ],
        digest=digest_of(proof),
    )


def _told_proof(told: ToldDrill) -> ProofInfo:
    return ProofInfo(
        by=told.by,
        version="",
        backup=told.label,
        backup_id=told.backup,
        hook=told.hook,
        command="",
        user="",
        exit_code=None,
        output="",
        tools=[],
        digests=[],
        digest=told.digest,
    )


def digest_of(proof: Proof | None) -> str:
    """One digest over those of all volumes: SHA-256 of a line `VOLUME DIGEST BYTES` for each, by name.
    Empty if none was taken."""
    if proof is None or not proof.digests:
        return ""
    lines = (f"{name} {digest} {size_bytes}\n" for name, digest, size_bytes in sorted(proof.digests))
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
