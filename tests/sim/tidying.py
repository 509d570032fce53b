"""After all is well again: a life that drops branches goes back to one, writes on, and drops them all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from engine.history.branches import branches
from protocol.errors import FarshoreError
from tests.sim.history import Violation
from tests.sim.sim_site import SimSite

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

DROPPED_S = 60.0


def tidy_up(sim: Simulation) -> None:
    """A volume is turned back to a branch while the peer is away, hosts go on from there, and branches are
    dropped. Everything was looked at before, and is again afterwards."""
    writer = _where_branches_are(sim)
    group, process = writer.group, writer.process
    assert group is not None
    assert process is not None
    sim.other(writer).end(power=False)
    with contextlib.suppress(FarshoreError):
        sim.operator.revert_to_branch(writer, process, group)
    sim.let_hosts_write()
    sim.converge()
    for site in sim.sites:
        sim.operator.branches.drop_all(site)
    if _run_until_dropped(sim):
        return
    # Where the indexer died with the last step, the next start goes on with it.
    for site in filter(_dropping, sim.sites):
        site.end(power=False)
    sim.converge()
    if not _run_until_dropped(sim):
        raise Violation("a branch is being dropped for ever")


def _run_until_dropped(sim: Simulation) -> bool:
    return sim.run_until(lambda: not any(map(_dropping, sim.sites)), DROPPED_S)


def _dropping(site: SimSite) -> bool:
    return site.group is not None and bool(site.group.dropping)


def _where_branches_are(sim: Simulation) -> SimSite:
    """The site that has some, which writes from now on; or the writer."""
    writer = sim.laws.writer()
    assert writer is not None
    assert writer.group is not None
    there = sim.other(writer)
    if not branches(writer.group) and there.group is not None and branches(there.group):
        with contextlib.suppress(FarshoreError):
            sim.operator.roles.switchover(writer)
        sim.converge()
    return sim.laws.writer() or writer
