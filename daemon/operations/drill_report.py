"""Reports of drills, made of what this site recorded, and signed."""

from __future__ import annotations

import asyncio
import importlib.metadata

from daemon.operations.drill_row import KnownDrill, drill_info, newest_first
from daemon.operations.paging import TimeSlices
from daemon.signing_key import signing_seed
from daemon.site import Site
from engine.integrity.drills import Drill
from protocol.commands.base import ROWS_MAX
from protocol.commands.drill import DrillInfo, DrillSign, SignedReport
from protocol.cut_text import time_text
from protocol.drill_report import signed_report
from protocol.drill_report_text import Statement
from protocol.errors import NotFound, Refused
from protocol.proof_limits import REPORT_BYTES_MAX
from protocol.signatures import fingerprint_of, key_of


async def report_of(site: Site, command: DrillSign) -> SignedReport:
    """A report of drills that this site recorded, and of nothing that a caller says."""
    names = [site.group(command.group).name] if command.group else sorted(site.groups)
    drills, slices = list[DrillInfo](), TimeSlices(site)
    for known in await _reported(site, names, command):
        drills.append(drill_info(site, known))
        await slices.pause()
    if not drills:
        raise _nothing_to_report(site, names, command)
    seed = signing_seed(site.disk)
    public = key_of(seed)
    statement = Statement(
        site=site.config.name,
        site_id=site.identity.site_id,
        made=time_text(site.clock.utc_ns()),
        version=importlib.metadata.version("farshore"),
        key=public,
        fingerprint=fingerprint_of(public),
        drills=drills,
    )
    # Away from the loop: a hundred drills with what their checks said take 50 ms to write and to sign.
    document = await asyncio.to_thread(signed_report, statement, command.format, seed)
    if len(document) > REPORT_BYTES_MAX:
        raise Refused(
            f"a report of {len(drills)} drills is larger than {REPORT_BYTES_MAX >> 20} MiB",
            next_step="name one backup, or fewer drills with --limit",
        )
    site.events.emit("drill.report_signed", group=command.group or "", drills=len(drills))
    return SignedReport(
        format=command.format,
        document=document.decode(),
        key=public,
        fingerprint=statement.fingerprint,
        drills=[each.drill for each in drills],
    )


async def _reported(site: Site, names: list[str], command: DrillSign) -> list[KnownDrill]:
    found, slices = list[KnownDrill](), TimeSlices(site)
    for _, known in newest_first(site, names, None, ROWS_MAX):
        if known.drill.started_utc_ns < command.since_utc_ns or len(found) == command.limit:
            break
        if known.told is None and (not command.backup or _is_of(site, known.drill, command.backup)):
            found.append(known)
        await slices.pause()
    return found


def _is_of(site: Site, drill: Drill, backup: str) -> bool:
    proof = site.proofs.of(drill)
    return proof is not None and backup in (proof.label, f"{proof.backup:016x}") and bool(proof.backup)


def _nothing_to_report(site: Site, names: list[str], command: DrillSign) -> NotFound:
    """An empty report would look like one that proves something."""
    what = f"of backup {command.backup} " if command.backup else ""
    where = f"of {command.group} " if command.group else ""
    group = command.group or next(iter(names), "G")
    told = [each.site for name in names for _, each in site.proofs.told(name, 1)]
    at = f" --at {command.backup}" if command.backup else ""
    elsewhere = f"; {told[0]} ran one: `farshore drill report --site {told[0]}`" if told else ""
    return NotFound(
        f"no drill {what}{where}was recorded at {site.config.name}, so there is nothing to sign",
        subject=command.backup or command.group or site.config.name,
        next_step=f"farshore drill run {group}{at}{elsewhere}",
    )
