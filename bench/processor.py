"""What processes used: processor time of all their threads, and what they had written to disks. A site's
indexers are children of its daemon."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """A daemon's processes."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def daemon_s(pid: int) -> float:
    """Of the daemon alone."""
    return _ticks(pid, 11, 13) / TICKS_PER_S


def daemon_and_children_s(pid: int) -> float:
    """Of the daemon, of its children that live, and of those that it waited for."""
    return sum(_ticks(each, 11, 15) for each in (pid, *children_of(pid))) / TICKS_PER_S


def waited_for_s() -> float:
    """Of all processes that this one started and waited for, with what they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def used_s(pids: Iterable[int]) -> float:
    """Of several, with their children."""
    return sum(map(daemon_and_children_s, pids))


def written_bytes(pids: Iterable[int]) -> int:
    """What these and their children have had written to disks, or will have once the cache is written back
    (proc(5), /proc/PID/io)."""
    total = 0
    for pid in (each for one in pids for each in (one, *children_of(one))):
        fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        total += int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])
    return total


def _ticks(pid: int, first: int, end: int) -> int:
    """Sum of fields of /proc/PID/stat (proc(5)), counted after the program's name: 11 to 14 are user and
    system, then those of children that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[first:end]))
