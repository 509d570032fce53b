"""How long a backup and a whole-volume restore take on a paired volume, as a person sees it.

The wall time of a command includes the start of its Python process, which the first row shows. A figure
that the daemon itself reports (`took_ms` in the reply) stands beside it where there is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench import fio
from bench.farshore_pair import FarshorePair

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One command: wall seconds, and the daemon's own milliseconds if it says so."""

    what: str
    wall_s: float
    daemon_ms: float | None


def timed(what: str, call: Callable[[], Any]) -> Timing:
    """Run a command that gives `--json` data."""
    began = time.monotonic()
    data = call()
    wall_s = time.monotonic() - began
    took = data.get("took_ms") if isinstance(data, dict) else None
    return Timing(what=what, wall_s=wall_s, daemon_ms=took)


def measure(*, volume_size: str = "10G", fill_mib: int = 1024, rewrite_mib: int = 1024) -> list[Timing]:
    """Fill, back up, rewrite, restore, undo; every timing in the order in which it happened."""
    with FarshorePair(size=volume_size, mode="async") as pair:
        site = pair.primary
        timings = [timed("start of a command that asks nothing", lambda: site.farshore("--help", site=False))]
        fio.fill(pair.uri, size_bytes=fill_mib * MIB)
        pair.settle()
        backup = partial(site.json, "backup", "create", pair.group, "--label")
        restore = partial(site.json, "restore", "volume", pair.volume, "--confirm", pair.volume, "--at")
        timings.append(timed(f"backup of a {volume_size} volume", partial(backup, "one")))
        fio.fill(pair.uri, size_bytes=rewrite_mib * MIB)
        pair.settle()
        timings.append(timed(f"backup after {rewrite_mib} MiB rewritten", partial(backup, "two")))
        timings.append(timed("restore of the first backup", partial(restore, "one")))
        timings.append(timed("undo of the restore", partial(restore, "two")))
        return timings
