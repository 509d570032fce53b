"""Commands about drills: keep a result, list those that are kept."""

from __future__ import annotations

from typing import Any

from daemon.operations.shapes import drill_data, time_of
from daemon.site import Site
from engine.drills import Drill, Step
from protocol.drill_commands import DrillList, DrillRecord

Data = dict[str, Any]


async def record(site: Site, command: DrillRecord) -> Data:
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
    data = drill_data(site, drill)
    failed = [step for step in data["steps"] if step["state"] == "failed"]
    site.events.emit(
        "drill.ok" if drill.ok else "drill.failed",
        group=group.name,
        position=str(cut),
        drill=data["drill"],
        recovery_s=data["recovery_s"],
        data_age_s=data["data_age_s"] if data["data_age_s"] is not None else "",
        failed=", ".join(f"{step['volume']} {step['step']}".strip() for step in failed),
    )
    return data


async def list_drills(site: Site, command: DrillList) -> Data:
    """Newest first."""
    names = [site.group(command.group).name] if command.group else sorted(site.groups)
    found = [drill for name in names for drill in site.drills.of(name, command.limit)]
    found.sort(key=lambda drill: drill.started_utc_ns, reverse=True)
    return {"drills": [drill_data(site, drill) for drill in found[: command.limit]]}
