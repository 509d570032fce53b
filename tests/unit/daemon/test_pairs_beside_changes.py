"""What somebody else does to a pair or a group while a command about it waits for the peer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daemon.operations import dispatch
from daemon.operations import pair as pair_commands
from daemon.operations import role as role_commands
from daemon.operations.greeting import check_keys
from engine.peering.pair_states import PairState
from protocol.commands.base import BaseCommand
from protocol.commands.group import GroupDelete, GroupRename
from protocol.commands.pair import PairCreate, PairDelete
from protocol.commands.role import Takeover
from protocol.errors import Busy, NotFound, WrongState
from protocol.messages import Report
from tests.unit.daemon.stage import Stage, staged

CREATE = PairCreate(group="good", peer="b")


@pytest.mark.parametrize(
    "change",
    [
        GroupDelete(group="good", confirm="good"),
        GroupRename(group="good", new="new"),
        PairCreate(group="good", peer="b"),
    ],
)
def test_a_pair_is_not_made_of_a_group_that_went_or_has_one_by_now(
    change: BaseCommand[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was shipped although it was closed, and the next group of that name was in a pair at once."""

    async def play() -> None:
        async with staged((), alone=("good",)) as stage:
            asked = list[str]()

            async def slowly(*words: Any) -> None:
                asked.append("once")
                if len(asked) == 1:
                    await dispatch(stage.a, change)
                await check_keys(*words)

            monkeypatch.setattr(pair_commands, "check_keys", slowly)
            with pytest.raises((Busy, NotFound)):
                await dispatch(stage.a, CREATE)
            paired = isinstance(change, PairCreate)
            assert (stage.a.state.pair("good") is not None, "good" in stage.a.shippers) == (paired, paired)

    asyncio.run(play())


async def take_over(stage: Stage) -> None:
    stage.b.pairs.take_over(stage.group("good", "b"), PairState.TAKEN_OVER)


async def end_the_pair(stage: Stage) -> None:
    await dispatch(stage.b, PairDelete(group="good", confirm="good"))


async def end_the_group(stage: Stage) -> None:
    await end_the_pair(stage)
    await dispatch(stage.b, GroupDelete(group="good", confirm="good"))


@pytest.mark.parametrize("meanwhile", [take_over, end_the_pair, end_the_group])
def test_a_takeover_of_what_changed_while_the_peer_was_asked_is_refused(
    meanwhile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with staged(("good",)) as stage:
            await stage.paired("good")
            await stage.a.stop()

            async def slowly(*_: object) -> Report | None:
                await meanwhile(stage)
                return None

            monkeypatch.setattr(role_commands, "_ask_report", slowly)
            with pytest.raises((Busy, NotFound, WrongState)):
                await dispatch(stage.b, Takeover(group="good", confirm="good"))
            assert stage.said(stage.b, "group.taken_over") == (["good"] if meanwhile is take_over else [])

    asyncio.run(play())
