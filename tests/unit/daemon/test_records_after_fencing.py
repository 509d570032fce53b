"""What a command that waited still wants to say, at a site that the peer took the writing from meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daemon.operations import pair as pair_commands
from engine.group.site_state import Role
from engine.peering.pair_states import Mode, PairState
from protocol.commands.pair import PairSet
from protocol.errors import WrongState
from protocol.events import StrictMode
from tests.unit.daemon.two_sites import TwoSites


def fenced() -> TwoSites:
    """`b` took over while it could not hear `a`, which follows it now."""
    sites = TwoSites()
    sites.part()
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.write(sites.b)
    sites.heal()
    sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
    return sites


def test_a_record_of_a_site_that_follows_is_refused_and_the_pair_stays_one() -> None:
    """It made a tail of its own, and the pair diverged."""
    sites = fenced()
    end = sites.group(sites.a).end
    for _ in range(2):  # before a frame of b's came, and after
        with pytest.raises(WrongState, match="not written here any more"):
            sites.group(sites.a).append_records([StrictMode(on=True)])
        assert sites.group(sites.a).end == end
        sites.until_paired(sites.b)
        end = sites.group(sites.a).end
    assert end == sites.group(sites.b).end


def test_leaving_the_strict_mode_is_not_taken_back_where_the_peer_writes_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sites = TwoSites(Mode.SYNC_STRICT)
    group = sites.group(sites.a)
    sites.until(lambda: group.strict)
    process = sites.process(sites.a)
    monkeypatch.setattr(type(process), "group", lambda self, name: group, raising=False)
    sites.part()

    async def wait_in_vain(*_: object) -> bool:
        sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
        sites.heal()
        sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
        return False

    monkeypatch.setattr(pair_commands, "wait_until", wait_in_vain)
    site: Any = process

    async def play() -> None:
        with pytest.raises(WrongState, match="written at b, not here"):
            await pair_commands.set_pair(site, PairSet(group="g", mode="async"))

    asyncio.run(play())
