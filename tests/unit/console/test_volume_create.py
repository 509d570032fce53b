"""`farshore volume create` with all that a first volume needs, and `pair create` with a peer that is new."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from protocol.commands.base import Reply
from protocol.commands.pair import PairCreate, PairShow
from protocol.commands.peer import PeerAdd, PeerAddReply
from protocol.commands.volume import VolumeCreate
from protocol.errors import ExitCode, NotAllowed
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import PAIR, StubSite

Run = Callable[..., Ran]
TOKEN = "farshore1." + "e" * 200
MADE = VolumeCreate(group="vm1", volume="root", size_bytes=1 << 30)


def words(*more: str) -> tuple[str, ...]:
    return ("volume", "create", "vm1/root", "--size", "1G", *more)


@pytest.fixture
def added(stub: StubSite) -> StubSite:
    """A site that has just learned of the peer rom, and has a group without a pair."""
    stub.replies["peer.add"] = PeerAddReply(peer="rom", endpoint=None, fingerprint="aa:bb", added=True)
    stub.replies["pair.show"] = replace(PAIR, peer=None, mode=None)
    return stub


def test_a_token_makes_the_peer_known_and_replicates_to_it(added: StubSite, farshore: Run) -> None:
    ran = farshore(*words("--with", TOKEN, "--mode", "sync"), "--site", str(added.directory))
    assert ran.code == 0, ran.err
    assert added.asked == [
        PeerAdd(token=TOKEN), MADE, PairShow(group="vm1"), PairCreate(group="vm1", peer="rom", mode="sync"),
    ]  # fmt: skip
    assert "peer rom, key aa:bb: compare it there" in ran.out


def test_a_group_that_has_the_pair_is_left_alone(added: StubSite, farshore: Run) -> None:
    added.replies["pair.show"] = replace(PAIR, peer="par")
    ran = farshore(*words("--with", "par"), "--site", str(added.directory))
    assert ran.code == 0, ran.err
    assert added.asked == [MADE, PairShow(group="vm1")]


def test_a_peer_that_is_away_has_nothing_yet(added: StubSite, farshore: Run) -> None:
    added.replies["pair.create"] = replace(PAIR, peer_connected=False)
    ran = farshore(*words("--with", "rom"), "--site", str(added.directory))
    assert ran.code == 0, ran.err
    assert f"has nothing of it yet: `farshore --site {added.directory} wait vm1 --state paired`" in ran.err
    added.replies["pair.create"] = PAIR
    assert "nothing of it yet" not in farshore(*words("--with", "rom"), "--site", str(added.directory)).err


def test_a_pair_that_is_refused_says_what_there_is(added: StubSite, farshore: Run) -> None:
    def refuse(_command: PairCreate) -> Reply:
        raise NotAllowed("rom does not know this site")

    added.replies["pair.create"] = refuse
    ran = farshore(*words("--with", "rom"), "--site", str(added.directory))
    assert ran.code == ExitCode.NOT_ALLOWED
    assert "vm1/root is made, and not replicated" in ran.err
    assert f"`farshore --site {added.directory} pair create vm1 --with rom`" in ran.err


def test_nothing_is_made_where_there_is_no_mkfs(
    added: StubSite, farshore: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    ran = farshore(*words("--mkfs", "ext4", "--with", TOKEN), "--site", str(added.directory))
    assert ran.code == ExitCode.NOT_FOUND
    assert "apt-get install libnbd-bin" in ran.err
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert farshore(*words("--mkfs", "ext4"), "--site", str(added.directory)).code == ExitCode.NOT_ALLOWED
    assert farshore(*words("--mode", "sync"), "--site", str(added.directory)).code == ExitCode.USAGE
    assert added.asked == []


def test_a_pair_is_made_by_token_too(added: StubSite, farshore: Run) -> None:
    ran = farshore("pair", "create", "vm1", "--with", TOKEN, "--site", str(added.directory))
    assert ran.code == 0, ran.err
    assert added.asked == [PeerAdd(token=TOKEN), PairCreate(group="vm1", peer="rom", mode="async")]
    # A name may begin like one.
    farshore("pair", "create", "vm1", "--with", "farshore1.rom", "--site", str(added.directory))
    assert added.asked[-1] == PairCreate(group="vm1", peer="farshore1.rom", mode="async")
