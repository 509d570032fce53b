"""What a drill that is recorded is proof of, and how that is said."""

from __future__ import annotations

from daemon.operations.drill_row import digest_of
from daemon.site import Site
from engine.acting import actor
from engine.copies.copies import Copy
from engine.group.core import GroupCore
from engine.integrity.proofs import NO_EXIT_CODE, Proof
from protocol.commands.drill import DrillInfo, DrillProof
from protocol.positions import Cut


def say_drill(site: Site, info: DrillInfo, proof: Proof | None) -> None:
    """The peer takes in what is said here (daemon/alerts/told_drills.py)."""
    site.events.emit(
        "drill.ok" if info.ok else "drill.failed",
        group=info.group,
        position=info.cut.text,
        drill=info.drill,
        recovery_s=info.recovery_s,
        data_age_s=info.data_age_s if info.data_age_s is not None else "",
        failed=", ".join(
            f"{step.volume} {step.step}".strip() for step in info.steps if step.state == "failed"
        ),
        backup=f"{proof.backup:016x}" if proof and proof.backup else "",
        label=proof.label if proof else "",
        check=proof.hook if proof else "",
        given_by=proof.by if proof else "",
        digest=digest_of(proof),
    )


def backup_at(group: GroupCore, cut: Cut) -> Copy | None:
    """The backup that shows this cut, a labelled one before others."""
    found = group.copies.of_cut(group.spans(), cut)
    return max(found, key=lambda copy: bool(copy.label), default=None)


def proof_of(copy: Copy | None, said: DrillProof) -> Proof:
    """As it is kept: with who gave the drill, and of which backup it was."""
    return Proof(
        by=actor(),
        version=said.version,
        label=copy.label if copy else "",
        backup=copy.id if copy else 0,
        hook=said.hook,
        command=said.command,
        user=said.user,
        exit_code=NO_EXIT_CODE if said.exit_code is None else said.exit_code,
        output=said.output,
        tools=said.tools,
        digests=tuple((each.volume, each.digest, each.size_bytes) for each in said.digests),
    )
