"""Running one seed, and what came of it."""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from structlog.testing import capture_logs

import site_primary.nbd.connection
import site_primary.nbd.reads
from tests.sim.history import Violation
from tests.sim.patching import patched
from tests.sim.shape import Focus, Patch
from tests.sim.simulation import WHOLE, Simulation, Trim


@dataclass(slots=True)
class Result:
    """How a seed went. `violation` is empty if all held."""

    seed: int
    violation: str = ""
    trace_hash: str = ""
    virtual_s: float = 0.0
    steps: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    trace: tuple[str, ...] = ()
    actions: int = 0


class HostLog:
    """In place of the NBD connections' logger: what they say of a healthy disk must not be an error."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def error(self, event: str, **fields: Any) -> None:
        """Failed writes are answers to the hosts; a read never fails."""
        self._sim.world.note(event, fields.get("error", ""))
        if event != "nbd.write_failed":
            raise Violation(f"L1: {event} {fields}")

    def warning(self, event: str, **fields: Any) -> None:
        """Hosts here send no garbage."""
        raise Violation(f"{event} {fields}")


def run_seed(seed: int, patches: tuple[Patch, ...] = (), trim: Trim = WHOLE, focus: Focus = ()) -> Result:
    """Run one seed, or a smaller life of it, with production patched as given (a planted bug)."""
    result = Result(seed)
    sim = Simulation(seed, trim, focus)
    with ExitStack() as stack:
        stack.enter_context(capture_logs())  # what is logged of a group is an event, too
        stack.enter_context(patched(sim.shape.patches))
        for module in (site_primary.nbd.connection, site_primary.nbd.reads):
            stack.enter_context(patched(((module, "log", HostLog(sim)),)))
        stack.enter_context(patched(patches))
        try:
            sim.run()
        except Violation as violation:
            result.violation = str(violation)
        except Exception as error:
            where = traceback.format_exc(limit=-8)
            result.violation = f"unexpected {type(error).__name__}: {error}\n{where}"
    result.trace_hash = sim.world.trace_hash()
    result.virtual_s = sim.world.now_ns / 1e9
    result.steps = sim.world.steps
    result.actions = sim.actions
    if result.violation:
        result.notes, result.trace = sim.world.lines(), sim.trace.lines()
    result.counts = {
        "frames": len(sim.history.moments),
        "acknowledged": sum(host.acknowledged for host in sim.hosts),
        "refused": sum(host.errors for host in sim.hosts),
        "starts": sim.starts,
        "checks": sim.history.checked,
        "backups": len(sim.history.backups),
        **{fault.value: count for fault, count in sim.faults.count.items()},
        **{task.value: count for task, count in sim.operator.done.items()},
    }
    return result
