"""Peers that move, change their names, or are made anew: two whole sites in this process, and a host that
stays connected all the while."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from console.demo.host import Host
from daemon.data_directory import make_site, next_keys
from daemon.operations import dispatch
from daemon.peer_tokens import make_token
from daemon.peers import PEERS_FILE
from daemon.site import Site
from engine.peering.pair_states import PairState
from engine.retention.journal_space import lease_of
from protocol.commands.pair import PairDelete
from protocol.commands.peer import PeerAdd, PeerRemove, PeerRename, PeerReplace, PeerRotateKey, PeerSet
from protocol.commands.site import SiteRotateKey
from protocol.errors import Busy, FarshoreError, NotAllowed, NotFound, WrongState
from protocol.limits import HEARTBEAT_TIMEOUT_S
from tests.support.sites import free_port
from tests.unit.daemon.stage import BLOCK, Stage, carried_out, open_site, staged

NAMES = ("good", "other")


async def reopened(site: Site, **changes: str) -> Site:
    """The site after a stop, a change of its site.toml and a start."""
    await site.stop()
    path = site.directory / "site.toml"
    for key, value in changes.items():
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{key} ")]
        path.write_text("\n".join([*lines, f'{key} = "{value}"', ""]))
    again = open_site(site.directory)
    await again.start()
    return again


async def written_through(stage: Stage, host: Host, letter: bytes) -> None:
    """The host's connection of before is still served, and the peer gets what it writes."""

    def write() -> None:
        host.write(0, letter * BLOCK)
        host.flush()

    await asyncio.to_thread(write)
    await stage.paired(*NAMES)


def connected_host(stage: Stage) -> Host:
    return Host(Path(stage.a.nbd_addresses[0].removeprefix("unix:")), "good/v")


def test_c31_a_renamed_peer_keeps_its_pairs_and_the_other_site_starts() -> None:
    async def play() -> None:
        async with staged(NAMES) as stage:
            await stage.write("good")
            with await asyncio.to_thread(connected_host, stage) as host:
                stage.b = await reopened(stage.b, name="rom")
                token = make_token(stage.b.own)
                before = (stage.a.directory / PEERS_FILE).read_bytes()
                with pytest.raises(NotAllowed, match="known here as b") as refused:
                    await dispatch(stage.a, PeerAdd(token=token))
                assert "peer rename b rom" in refused.value.next_step
                assert (stage.a.directory / PEERS_FILE).read_bytes() == before
                await dispatch(stage.a, PeerRename(peer="b", new="rom"))
                await written_through(stage, host, b"r")
            await dispatch(stage.a, PeerAdd(token=token))
            assert {shipper.peer for shipper in stage.a.shippers.values()} == {"rom"}
            # The receiving site may call the other one anything, too.
            await dispatch(stage.b, PeerRename(peer="a", new="lon"))
            await stage.write("good", b"s")
            await stage.paired(*NAMES)
            stage.a = await reopened(stage.a)
            await stage.paired(*NAMES)
            assert stage.a.peer_of("good") == "rom"
            assert stage.b.receivers["good"].peer == "lon"

    asyncio.run(play())


@pytest.mark.parametrize("pairs_done", [0, 1])
def test_c31_a_rename_cut_short_by_a_loss_of_power_is_finished_at_the_next_start(pairs_done: int) -> None:
    async def play() -> None:
        async with staged(NAMES) as stage:
            await stage.write("good")
            group = stage.group("good")
            group.kept.leases.hold(lease_of("b"), group.end, durable=True)
            for name in NAMES[:pairs_done]:
                row = stage.a.state.pair(name)
                assert row is not None
                stage.a.state.put_pair(replace(row, peer="rom"))
            await stage.a.stop()
            path = stage.a.directory / PEERS_FILE
            rows = json.loads(path.read_bytes())
            path.write_text(json.dumps([{**rows[0], "name": "rom", "was": "b"}]))
            stage.a = open_site(stage.a.directory)
            await stage.a.start()
            await stage.paired(*NAMES)
            assert [stage.a.peer_of(name) for name in NAMES] == ["rom", "rom"]
            assert "was" not in json.loads(path.read_bytes())[0]
            if pairs_done == 0:
                assert lease_of("b") not in stage.a.state.leases("good")

    asyncio.run(play())


def test_c33_a_peer_that_moved_is_reached_without_a_restart() -> None:
    async def play() -> None:
        async with staged(NAMES) as stage:
            with await asyncio.to_thread(connected_host, stage) as host:
                for way in ("set", "add"):
                    endpoint = f"tcp://127.0.0.1:{free_port()}"
                    stage.b = await reopened(stage.b, replication=endpoint)
                    if way == "set":
                        await dispatch(stage.a, PeerSet(peer="b", endpoint=endpoint))
                    else:
                        await dispatch(stage.a, PeerAdd(token=make_token(stage.b.own)))
                    await written_through(stage, host, way[:1].encode())
            with pytest.raises(FarshoreError, match="tcp://HOST:PORT"):
                await dispatch(stage.a, PeerSet(peer="b", endpoint="ipc:///etc/passwd"))
            assert stage.a.peers.get("b").endpoint == endpoint

    asyncio.run(play())


def test_c32_a_rebuilt_site_takes_the_old_ones_place_and_full_protection_is_back() -> None:
    async def play() -> None:
        async with staged(NAMES) as stage:
            await stage.write("good")
            await stage.paired(*NAMES)
            old = stage.b
            with await asyncio.to_thread(connected_host, stage) as host:
                token = make_token(replace(old.own, site_id="f00d"))
                with pytest.raises(Busy, match="connected"):
                    await dispatch(stage.a, PeerReplace(peer="b", token=token))
                await old.stop()
                shutil.rmtree(old.directory)
                make_site(old.directory, old.config)
                stage.b = open_site(old.directory)
                await stage.b.start()
                await dispatch(stage.b, PeerAdd(token=make_token(stage.a.own)))
                token = make_token(stage.b.own)
                with pytest.raises(NotAllowed, match="another key") as refused:
                    await dispatch(stage.a, PeerAdd(token=token))
                assert "peer replace b TOKEN" in refused.value.next_step
                long_ago_s = stage.a.clock.monotonic() - HEARTBEAT_TIMEOUT_S - 1
                for shipper in stage.a.shippers.values():
                    shipper.session.heard_at = long_ago_s
                await dispatch(stage.a, PeerReplace(peer="b", token=token))
                assert stage.a.shippers["good"].state is not PairState.PAIRED
                assert stage.a.shippers["good"].marks.remote_durable == 0
                await written_through(stage, host, b"n")
            stage.a = await reopened(stage.a)
            await stage.paired(*NAMES)
            assert stage.a.peers.get("b") == stage.b.own

    asyncio.run(play())


def test_a_peer_is_removed_once_no_pair_needs_it() -> None:
    async def play() -> None:
        async with staged(NAMES) as stage:
            with pytest.raises(NotAllowed, match="2 pairs") as refused:
                await dispatch(stage.a, PeerRemove(peer="b"))
            assert "farshore pair delete good --confirm good" in refused.value.next_step
            for name in NAMES:
                await dispatch(stage.a, PairDelete(group=name, confirm=name))
            await dispatch(stage.a, PeerRemove(peer="b"))
            with pytest.raises(NotFound):
                await dispatch(stage.a, PeerRemove(peer="b"))
            stage.a = await reopened(stage.a)
            assert stage.a.peers.all() == []
            await stage.write("good", b"z")

    asyncio.run(play())


def test_a_pair_with_a_peer_that_is_not_known_keeps_its_hosts_and_goes_on_once_it_is() -> None:
    """peers.json was lost, or its row made no sense: the group is served as with a peer that is away."""

    async def play() -> None:
        async with staged(NAMES) as stage:
            await stage.a.stop()
            (stage.a.directory / PEERS_FILE).unlink()
            stage.a = open_site(stage.a.directory)
            await stage.a.start()
            await stage.write("good", b"u")
            shipper = stage.a.shippers["good"]
            assert "not known" in shipper.session.silence
            await dispatch(stage.a, PeerAdd(token=make_token(stage.b.own)))
            await stage.paired(*NAMES)
            assert stage.said(stage.a, "group.failed") == []

    asyncio.run(play())


def test_a_sites_key_is_changed_without_a_stop() -> None:
    async def play() -> None:
        async with staged(NAMES) as stage:
            with await asyncio.to_thread(connected_host, stage) as host:
                # Of the site that dials, then of the one that is dialled.
                for here, there, name in ((stage.a, stage.b, "a"), (stage.b, stage.a, "b")):
                    with pytest.raises(WrongState, match="no key"):
                        await dispatch(here, SiteRotateKey(finish=True))
                    before = here.own
                    token = (await carried_out(here, SiteRotateKey())).token
                    assert (await carried_out(here, SiteRotateKey())).token == token
                    # The token of the key in use is the likely mistake: nothing is expected then.
                    known = await carried_out(there, PeerRotateKey(peer=name, token=make_token(before)))
                    assert known.next_fingerprint is None
                    assert stage.said(there, "peer.key_expected") == []
                    stranger = make_token(replace(before, site_id="f00d"))
                    with pytest.raises(NotAllowed, match="another site than"):
                        await dispatch(there, PeerRotateKey(peer=name, token=stranger))
                    await dispatch(there, PeerRotateKey(peer=name, token=token))
                    await written_through(stage, host, b"1")  # by the old key, still
                    assert there.peers.get(name) == before
                    await dispatch(here, SiteRotateKey(finish=True))
                    await written_through(stage, host, b"2")
                    assert stage.said(there, "peer.key_changed") == [name]
                    assert there.peers.get(name) == here.own != before
                    assert there.peers.coming_keys() == {}
            # A loss of power in the middle: the next key is the secret one already.
            public = stage.a.keys.public
            await dispatch(stage.a, SiteRotateKey())
            coming = next_keys(stage.a.disk)
            assert coming is not None
            token = make_token(replace(stage.a.own, public_key=coming.public))
            await dispatch(stage.b, PeerRotateKey(peer="a", token=token))
            keys = stage.a.directory / "keys"
            await stage.a.stop()
            (keys / "secret").write_bytes((keys / "next").read_bytes())
            stage.a = open_site(stage.a.directory)
            assert stage.a.keys.public != public
            assert not (keys / "next").exists()
            await stage.a.start()
            await stage.write("good", b"3")
            await stage.paired(*NAMES)
            # What is no key there stops no start.
            (keys / "next").write_text("junk")
            stage.a = await reopened(stage.a)

    asyncio.run(play())
