"""What keeps a pair from being made, said at once and with nothing saved; and a pair with another peer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from daemon.operations import dispatch
from daemon.peer_tokens import make_token
from engine.ports.zmq_transport import generate_keypair
from engine.retention.journal_space import lease_of
from protocol.commands.clone import CloneCreate
from protocol.commands.pair import PairCreate
from protocol.commands.peer import PeerAdd, PeerRemove, PeerReplace, PeerSet
from protocol.cut_text import CutLatest
from protocol.errors import NotAllowed, Refused, Unsafe, WrongState
from tests.support.sites import free_port
from tests.unit.daemon.stage import make_one_site, staged


def test_c51_a_stale_key_and_a_clone_are_refused_at_once() -> None:
    async def play() -> None:
        async with staged((), alone=("good", "other")) as stage:
            await stage.write("good")
            stale = replace(stage.b.own, public_key=generate_keypair()[0])
            await dispatch(stage.a, PeerReplace(peer="b", token=make_token(stale)))
            with pytest.raises(NotAllowed, match="token here the newest") as refused:
                await asyncio.wait_for(dispatch(stage.a, PairCreate(group="good", peer="b")), 10)
            assert "peer replace b TOKEN" in refused.value.next_step
            await dispatch(stage.a, PeerReplace(peer="b", token=make_token(stage.b.own)))
            await dispatch(stage.b, PeerRemove(peer="a"))
            with pytest.raises(NotAllowed, match="does not know this site"):
                await asyncio.wait_for(dispatch(stage.a, PairCreate(group="good", peer="b")), 10)
            assert stage.a.state.pair("good") is None
            await dispatch(stage.b, PeerAdd(token=make_token(stage.a.own)))
            await dispatch(stage.a, CloneCreate(group="good", clone="try", cut=CutLatest()))
            with pytest.raises(WrongState, match="try is a clone of group good"):
                await dispatch(stage.a, PairCreate(group="try", peer="b"))
            # A peer that is away may come later: the pair is made.
            await dispatch(stage.a, PeerSet(peer="b", endpoint=f"tcp://127.0.0.1:{free_port()}"))
            await dispatch(stage.a, PairCreate(group="other", peer="b"))
            assert stage.a.peer_of("other") == "b"

    asyncio.run(play())


def test_a_pair_with_another_peer_in_place_of_one_that_is_gone() -> None:
    async def play() -> None:
        async with staged(("good",)) as stage:
            await stage.write("good")
            await stage.paired("good")
            group = stage.group("good")
            group.kept.leases.hold(lease_of("b"), group.end, durable=True)
            old, stage.b = stage.b, await make_one_site(stage.b.directory.parent, "c")
            await old.stop()
            await dispatch(stage.a, PeerAdd(token=make_token(stage.b.own)))
            await dispatch(stage.b, PeerAdd(token=make_token(stage.a.own)))
            with pytest.raises(Refused, match="a pair already, with b") as refused:
                await dispatch(stage.a, PairCreate(group="good", peer="c"))
            assert "--replace --confirm good" in refused.value.next_step
            with pytest.raises(Refused, match="a pair already, with b") as refused:
                await dispatch(stage.a, PairCreate(group="good", peer="b"))
            assert "--replace" not in refused.value.next_step
            with pytest.raises(Unsafe):
                await dispatch(stage.a, PairCreate(group="good", peer="c", replace=True))
            await dispatch(stage.a, PairCreate(group="good", peer="c", replace=True, confirm="good"))
            await stage.write("good", b"c")
            await stage.paired("good")
            assert stage.a.peer_of("good") == "c"
            assert lease_of("b") not in stage.a.state.leases("good")
            with pytest.raises(WrongState, match="is written at a") as refused_there:
                await dispatch(stage.b, PairCreate(group="good", peer="a", replace=True, confirm="good"))
            assert "farshore takeover good" in refused_there.value.next_step

    asyncio.run(play())
