"""A pair that was deleted at the site that writes is no silent peer at the other one."""

from __future__ import annotations

import asyncio

import pytest

from daemon.alerts.figures import pair_figures, peer_figures
from daemon.alerts.lost_pairs import LostPairs
from daemon.operations import dispatch
from engine.peering.pair_states import PairState
from protocol.commands.group import GroupDelete
from protocol.commands.pair import PairCreate, PairDelete
from protocol.commands.role import Takeover
from tests.unit.daemon.stage import staged

HEARD_S = "site_secondary.receiver.HEARTBEAT_TIMEOUT_S"


@pytest.mark.parametrize("group_too", [False, True])
def test_it_says_so_and_what_to_do(monkeypatch: pytest.MonkeyPatch, group_too: bool) -> None:
    monkeypatch.setattr(HEARD_S, 0.5)

    async def play() -> None:
        async with staged(("bad", "good")) as stage:
            receiver, lost = stage.b.receivers["bad"], LostPairs(stage.b)
            await lost.ask()
            assert not receiver.disowned
            await dispatch(stage.a, PairDelete(group="bad", confirm="bad"))
            if group_too:
                await dispatch(stage.a, GroupDelete(group="bad", confirm="bad"))
            await stage.until(lambda: not receiver.connected)
            await lost.ask()
            assert receiver.state is PairState.SUSPENDED
            assert "was deleted there" in receiver.reason
            assert "`farshore takeover bad --confirm bad`" in receiver.reason
            (peer,) = peer_figures(stage.b, {})
            assert peer.pairs == 1
            assert "deleted" in pair_figures(stage.b, stage.group("bad", "b"), frozenset()).reason

    asyncio.run(play())


def test_a_pair_that_is_made_anew_takes_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HEARD_S, 0.5)

    async def play() -> None:
        async with staged(("bad",)) as stage:
            receiver = stage.b.receivers["bad"]
            await dispatch(stage.a, PairDelete(group="bad", confirm="bad"))
            await stage.until(lambda: not receiver.connected)
            await LostPairs(stage.b).ask()
            assert receiver.disowned
            await dispatch(stage.a, PairCreate(group="bad", peer="b", mode="async"))
            await stage.paired("bad")
            assert not stage.b.receivers["bad"].disowned

    asyncio.run(play())


def test_a_site_that_is_down_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HEARD_S, 0.5)
    monkeypatch.setattr("daemon.alerts.lost_pairs.ASK_S", 0.3)

    async def play() -> None:
        async with staged(("bad",)) as stage:
            await stage.a.stop()
            receiver = stage.b.receivers["bad"]
            await stage.until(lambda: not receiver.connected)
            await LostPairs(stage.b).ask()
            assert not receiver.disowned
            assert "silent" in receiver.reason

    asyncio.run(play())


def test_a_takeover_after_it_meets_a_group_without_a_pair() -> None:
    """Who wrote it goes on with it alone: that it belongs to another pair was not so."""

    async def play() -> None:
        async with staged(("bad",)) as stage:
            await dispatch(stage.a, PairDelete(group="bad", confirm="bad"))
            await dispatch(stage.b, Takeover(group="bad", confirm="bad"))
            await stage.until(lambda: "has no pair" in stage.b.shippers["bad"].reason)
            assert stage.a.state.group("bad").role.writes

    asyncio.run(play())
