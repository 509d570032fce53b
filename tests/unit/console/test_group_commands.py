"""Groups, and the keys of sites: what is asked of the site, and what is printed."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from protocol.commands.group import GroupDelete, GroupList, GroupRename, GroupShow
from protocol.commands.pair import PairCreate
from protocol.commands.peer import PeerRotateKey
from protocol.commands.site import SiteRotateKey
from protocol.errors import ExitCode
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import PEER, SUMMARY, StubSite

Run = Callable[..., Ran]


def test_groups_are_listed_shown_renamed_and_deleted(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    listed = farshore("group", "list", *site)
    assert listed.out.splitlines()[1].split()[0] == "vm1"
    assert SUMMARY.group_id in listed.out
    assert "locked until" in farshore("group", "show", "vm1", *site).out
    assert farshore("group", "rename", "vm1", "old", *site).code == 0
    refused = farshore("group", "delete", "vm1", *site)
    assert refused.code == ExitCode.UNSAFE
    assert "next: add --confirm vm1" in refused.err
    assert farshore("group", "delete", "vm1", "--confirm", "vm1", *site).code == 0
    asked = [each for each in stub.asked if not isinstance(each, GroupList)]
    assert asked == [
        GroupShow(group="vm1"),
        GroupRename(group="vm1", new="old"),
        GroupDelete(group="vm1", confirm="vm1"),
    ]


def test_a_key_is_rotated_and_a_peer_is_put_in_anothers_place(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    assert "FS1.abc" in farshore("site", "rotate-key", *site).out
    for words in (
        ("site", "rotate-key", "--finish"),
        ("peer", "rotate-key", "par", "FS1.abc"),
        ("pair", "create", "vm1", "--with", "par", "--replace", "--confirm", "vm1"),
    ):
        assert farshore(*words, *site).code == 0
    assert "known by that key already" in farshore("peer", "rotate-key", "par", "FS1.abc", *site).err
    coming = structs.replace(PEER, next_fingerprint="cc:dd")
    stub.replies["peer.rotate-key"] = coming
    assert "known by that key" not in farshore("peer", "rotate-key", "par", "FS1.abc", *site).err
    del stub.asked[-2:]
    assert farshore("pair", "create", "vm1", "--with", "par", "--replace", *site).code == ExitCode.UNSAFE
    assert stub.asked == [
        SiteRotateKey(),
        SiteRotateKey(finish=True),
        PeerRotateKey(peer="par", token="FS1.abc"),
        PairCreate(group="vm1", peer="par", mode="async", replace=True, confirm="vm1"),
    ]
