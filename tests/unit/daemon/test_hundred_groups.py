"""A hundred groups, one of them made to fail in each of append, checkpoint, ship, receive and recovery: the
others go on serving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.peering.pair_states import PairState
from protocol.commands.site import SiteStatus
from tests.unit.daemon.stage import Stage, bang, carried_out, open_site, staged

NAMES = tuple(f"g{number:03}" for number in range(100))
# Both sites are in this process, which has room for the address space of 127 indexes.
PAIRED, ALONE = NAMES[:20], NAMES[20:]
APPEND, CHECKPOINT, SHIP, RECEIVE, RECOVERY = "g005", "g030", "g010", "g015", "g060"


async def _all_serve(stage: Stage, *, but: set[str], letter: bytes) -> None:
    """A host of each of the others writes, and reads it back."""
    for name in NAMES:
        if name not in but:
            await stage.write(name, letter)
    rows = {row.group: row for row in (await carried_out(stage.a, SiteStatus())).groups}
    assert set(rows) == set(NAMES)
    assert {name for name in NAMES if rows[name].state == "damaged" or rows[name].reason} <= but
    assert stage.stopped == []


@pytest.mark.timeout(1200)
def test_one_of_a_hundred_groups_takes_no_other_with_it() -> None:
    async def play() -> None:
        async with staged(PAIRED, ALONE) as stage:
            failed: set[str] = set()

            stage.group(APPEND).writer.append = bang  # type: ignore[method-assign]
            with pytest.raises(OSError):
                await stage.write(APPEND)
            failed.add(APPEND)
            await _all_serve(stage, but=failed, letter=b"1")

            stage.group(CHECKPOINT).checkpoints._done = bang  # type: ignore[method-assign]
            stage.group(CHECKPOINT).checkpoints.begin()
            await stage.until(lambda: stage.group(CHECKPOINT).failed)
            failed.add(CHECKPOINT)
            await _all_serve(stage, but=failed, letter=b"2")

            shipper: Any = stage.a.shippers[SHIP]
            shipper.session._on_due = bang
            shipper._connect()
            await stage.until(lambda: stage.group(SHIP).failed)
            failed.add(SHIP)
            await _all_serve(stage, but=failed, letter=b"3")

            stage.group(RECEIVE, "b").memtable.apply = bang  # type: ignore[method-assign]
            await stage.write(RECEIVE)
            await stage.until(lambda: stage.group(RECEIVE, "b").failed)
            await stage.until(lambda: stage.a.shippers[RECEIVE].state is PairState.SUSPENDED)
            await _all_serve(stage, but=failed | {RECEIVE}, letter=b"4")
            await stage.paired(*(set(PAIRED) - failed - {RECEIVE}))
            assert {name for name, group in stage.a.groups.items() if group.failed} == failed
            assert {name for name, group in stage.b.groups.items() if group.failed} == {RECEIVE}
            assert set(stage.said(stage.a, "group.failed")) == failed

            # Recovery: the same site again, with one journal of which the checkpoint is gone.
            directory = stage.a.directory
            await stage.a.stop()
            (directory / "groups" / RECOVERY / "index.mdb").write_bytes(b"not an index" * 4096)
            stage.a = open_site(directory)
            await stage.a.start()
            assert set(stage.a.damaged) == {RECOVERY}
            # A start mends the others: each is what its journal says.
            await _all_serve(stage, but={RECOVERY, RECEIVE}, letter=b"5")
            await stage.paired(*(set(PAIRED) - {RECEIVE}))

    asyncio.run(play())
