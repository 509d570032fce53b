"""More groups than a process had address space for, many of them written at once: killed, started, stopped.
No group costs a process, threads or much disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.growth import Growth, disk_bytes
from bench.processor import children_of
from tests.support.sites import running_sites

# The index of each took 1 TiB of address space: the 127th kept a site from ever starting again.
GROUPS, WRITTEN, BLOCKS = 150, 40, 16


@pytest.mark.slow
def test_150_groups_lose_nothing_acknowledged() -> None:
    with running_sites("a") as (site,):
        growth = Growth(site, GROUPS, WRITTEN, BLOCKS)
        growth.create()
        growth.write()
        site.kill()
        site.start()
        growth.check()
        growth.write()
        assert site.stop() == 0
        site.start()
        growth.check()
        assert len(site.json("status")["groups"]) == GROUPS
        assert len(os.listdir(f"/proc/{site.pid}/task")) < 40
        assert len(children_of(site.pid)) <= 8
        assert disk_bytes(Path(site.directory, "groups")) < GROUPS * (4 << 20)
        site.check_log()
