"""When a backup was last proven, and how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from daemon.operations.drill_row import KnownDrill, newest_first, proof_info
from daemon.operations.paging import TimeSlices
from daemon.site import Site
from engine.copies.copies import Copy
from engine.group.core import GroupCore
from engine.journal.reader import BadFrame
from protocol.commands.backup import ProvenInfo
from protocol.commands.base import ROWS_MAX
from protocol.cut_text import time_text
from protocol.errors import FarshoreError


async def proven(site: Site, group: GroupCore, copy: Copy) -> list[ProvenInfo]:
    """When a backup was last proven, and how: by a verification here, by drills here and at the peer. Of
    drills the newest that was good, and a newer one that was not. Newest first."""
    mark, found = group.copies.mark_of(copy.id), list[ProvenInfo]()
    if mark.verified_utc_ns:
        found.append(
            ProvenInfo(
                how="verified",
                ok=not mark.damage,
                site=site.config.name,
                by=group.copies.verified_by(copy.id),
                at=time_text(mark.verified_utc_ns),
                digest=_journal_digest(group, copy),
                drill="",
                check="",
            )
        )
    drills, slices = list[KnownDrill](), TimeSlices(site)
    for _, known in newest_first(site, [group.name], None, ROWS_MAX):
        if _is_of(known, copy):
            drills.append(known)
        await slices.pause()
    found += _newest(site, drills, here=True)
    found += _newest(site, drills, here=False)
    return sorted(found, key=lambda each: each.at, reverse=True)


def _is_of(known: KnownDrill, copy: Copy) -> bool:
    return known.drill.cut == copy.cut or (known.told is not None and known.told.backup == f"{copy.id:016x}")


def _newest(site: Site, drills: Iterable[KnownDrill], *, here: bool) -> Iterator[ProvenInfo]:
    """Up to the newest good one, of those that were run here or at the peer."""
    failed_before = False
    for known in drills:
        if (known.told is None) != here or (failed_before and not known.drill.ok):
            continue
        proof = proof_info(site, known)
        yield ProvenInfo(
            how="drilled",
            ok=known.drill.ok,
            site=known.told.site if known.told else site.config.name,
            by=proof.by if proof else "",
            at=time_text(known.drill.started_utc_ns),
            digest=proof.digest if proof else "",
            drill=f"{known.drill.started_utc_ns:016x}",
            check=(proof.hook or proof.command) if proof else "",
        )
        if known.drill.ok:
            return
        failed_before = True


def _journal_digest(group: GroupCore, copy: Copy) -> str:
    """That of the journal's chain at the backup's cut, which both sites have; empty if it cannot be read."""
    try:
        digest = group.reader.digest_at(group.timelines, copy.cut.timeline, copy.cut.position)
    except (FarshoreError, BadFrame):
        return ""
    return f"journal:{digest.hex()}"
