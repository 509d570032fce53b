"""Commands about drills: keep a result, list those that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Annotated, NamedTuple

from msgspec import Meta

from daemon.operations.paging import Page, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.operations.shapes import cut_info, extended, time_of
from daemon.site import Site
from engine.integrity.drills import Drill, Step
from protocol.commands.base import ROWS_MAX
from protocol.commands.drill import DrillInfo, DrillList, DrillListReply, DrillRecord, DrillSummary, StepInfo
from protocol.cut_text import time_text


class DrillKey(NamedTuple):
    """Newest first, then by group. `left`: how many more were asked for."""

    negative_ns: Annotated[int, Meta(gt=-(1 << 62), le=0)]
    group: str
    left: Annotated[int, Meta(ge=0, lt=ROWS_MAX)]


@carries_out(DrillRecord)
async def record(site: Site, command: DrillRecord) -> DrillInfo:
    """Keep a drill, and say it as an event: one that failed is a warning."""
    group = site.group(command.group)
    cut = command.cut.cut
    drill = site.drills.add(
        Drill(
            group=group.name,
            started_utc_ns=command.started_utc_ns,
            volumes=command.volumes,
            cut=cut,
            cut_utc_ns=time_of(group, cut) or 0,
            ok=command.ok,
            recovery_ms=round(command.recovery_s * 1e3),
            data_age_ms=-1 if command.data_age_s is None else round(command.data_age_s * 1e3),
            steps=tuple(
                Step(
                    step=each.step,
                    volume=each.volume,
                    state=each.state,
                    took_ms=round(each.took_s * 1e3),
                    said=each.said,
                )
                for each in command.steps
            ),
        )
    )
    info = drill_info(site, drill)
    site.events.emit(
        "drill.ok" if drill.ok else "drill.failed",
        group=group.name,
        position=str(cut),
        drill=info.drill,
        recovery_s=info.recovery_s,
        data_age_s=info.data_age_s if info.data_age_s is not None else "",
        failed=", ".join(
            f"{step.volume} {step.step}".strip() for step in info.steps if step.state == "failed"
        ),
    )
    return info


@carries_out(DrillList)
async def list_drills(site: Site, command: DrillList) -> Page[DrillListReply]:
    """Newest first."""
    names = [site.group(command.group).name] if command.group else sorted(site.groups)
    start = start_of(command, DrillKey)
    rows = _newest_first(site, names, start, start.left if start else command.limit)
    drills, more = await rows_of(site, command, rows, lambda drill: drill_info(site, drill))
    return Page(DrillListReply(drills=drills), more)


def _newest_first(
    site: Site, names: list[str], start: DrillKey | None, limit: int
) -> Iterator[tuple[DrillKey, Drill]]:
    """At most `limit` drills beyond `start`, read one by one: a thousand of each group are kept."""
    waiting: list[tuple[int, str, Drill]] = []

    def take(name: str, before_utc_ns: int | None) -> None:
        for drill in site.drills.of(name, 1, before_utc_ns):
            heappush(waiting, (-drill.started_utc_ns, name, drill))

    for name in names:
        # Of drills that began at the same time, those of groups up to this one have come.
        take(name, None if start is None else -start.negative_ns + (name > start.group))
    while waiting and limit:
        limit -= 1
        negative_ns, name, drill = heappop(waiting)
        yield DrillKey(negative_ns, name, limit), drill
        take(name, drill.started_utc_ns)


def drill_summary(site: Site, drill: Drill) -> DrillSummary:
    """A drill without its steps."""
    return DrillSummary(
        drill=f"{drill.started_utc_ns:016x}",
        group=drill.group,
        site=site.config.name,
        volumes=list(drill.volumes),
        cut=cut_info(drill.cut, drill.cut_utc_ns),
        started=time_text(drill.started_utc_ns),
        ok=drill.ok,
        recovery_s=drill.recovery_ms / 1e3,
        data_age_s=drill.data_age_ms / 1e3 if drill.data_age_ms >= 0 else None,
    )


def drill_info(site: Site, drill: Drill) -> DrillInfo:
    """A drill."""
    steps = [
        StepInfo(
            volume=step.volume,
            step=step.step,
            state=step.state,
            took_s=step.took_ms / 1e3,
            said=step.said,
        )
        for step in drill.steps
    ]
    return extended(DrillInfo, drill_summary(site, drill), steps=steps)
