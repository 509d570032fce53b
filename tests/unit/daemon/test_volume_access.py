"""Who may open a volume: nobody listed is everybody; who is not on a list neither sees nor opens it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from daemon.site import Site
from protocol.commands.backup import BackupCreate
from protocol.commands.base import BaseCommand
from protocol.commands.clone import CloneCreate
from protocol.commands.group import GroupDelete, GroupRename
from protocol.commands.volume import VolumeCreate
from protocol.commands.volume_access import VolumeAccess, VolumeAccessReply, VolumeAllow, VolumeDisallow
from protocol.cut_text import CutLatest
from protocol.errors import Busy, NotAllowed, NotFound, Refused, UsageError
from protocol.hosts import NOBODY, UID_MAX, Right, parse_host
from protocol.limits import HOSTS_LISTED_MAX
from site_primary.nbd.exports import Export
from tests.support.sites import short_directory
from tests.unit.daemon.stage import carried_out, make_one_site, open_site

ONE, OTHER, CERT = "uid:1001", "uid:1002", "cert:vmhost1"


class Connected:
    """A host's connection, as an export sees it."""

    def __init__(self, export: Export, who: str, *, writes: bool) -> None:
        self.client, self.who, self.writes = f"client {who}", who, writes
        self.there = True
        export.connections[self] = None

    def shut(self) -> None:
        self.there = False

    def resume(self) -> None:
        """It may read on."""

    def resized(self, size_bytes: int) -> None:
        """The volume has another size."""


def run(work: Callable[[Site], Awaitable[None]]) -> None:
    """With a site in this process that has g/v and g/w."""

    async def whole() -> None:
        parent = short_directory()
        site = await make_one_site(parent, "a")
        try:
            for volume in ("v", "w"):
                await carried_out(site, VolumeCreate(group="g", volume=volume, size_bytes=1 << 20))
            await work(site)
        finally:
            await site.stop()
            shutil.rmtree(parent)

    asyncio.run(whole())


def allow(host: str, right: str = "rw", volume: str = "v", *, force: bool = False) -> VolumeAllow:
    chosen: Any = right
    return VolumeAllow(group="g", volume=volume, host=host, right=chosen, force=force)


def disallow(host: str | None, *, force: bool = False) -> VolumeDisallow:
    return VolumeDisallow(group="g", volume="v", host=host, force=force)


async def refused(site: Site, command: BaseCommand[VolumeAccessReply], kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        await carried_out(site, command)
    return str(caught.value)


def connect(site: Site, host: str, name: str = "g/v") -> Connected:
    """As the door does it."""
    info = site.exports.seen_by(host).find(name)
    return Connected(site.exports.open(info), host, writes=not info.read_only)


def test_nobody_listed_is_everybody() -> None:
    async def work(site: Site) -> None:
        for host in (ONE, CERT, NOBODY):
            assert site.exports.seen_by(host).names() == ["g/v", "g/w"]
            assert not site.exports.seen_by(host).find("g/v").read_only
        shown = await carried_out(site, VolumeAccess(group="g", volume="v"))
        assert (shown.everybody, shown.entries) == (True, [])

    run(work)


def test_who_is_not_listed_neither_sees_nor_opens_it() -> None:
    async def work(site: Site) -> None:
        await carried_out(site, allow(ONE))
        await carried_out(site, allow(CERT, "ro"))
        for host in (OTHER, NOBODY, "cert:other", "uid:10011"):
            seen = site.exports.seen_by(host)
            assert seen.names() == ["g/w"]
            assert seen.find("g/w").name == "g/w"
            with pytest.raises(NotAllowed, match="is not on the list of g/v"):
                seen.find("g/v")
        assert site.exports.seen_by(ONE).names() == ["g/v", "g/w"]
        assert not site.exports.seen_by(ONE).find("g/v").read_only
        assert site.exports.seen_by(CERT).find("g/v").read_only

    run(work)


def test_root_and_the_daemons_user_may_always() -> None:
    async def work(site: Site) -> None:
        await carried_out(site, allow(ONE, "ro"))
        for host in ("uid:0", f"uid:{os.geteuid()}"):
            assert not site.exports.seen_by(host).find("g/v").read_only

    run(work)


def test_the_past_and_clones_are_of_the_same_list() -> None:
    async def work(site: Site) -> None:
        await carried_out(site, BackupCreate(group="g", label="nightly"))
        await carried_out(site, CloneCreate(group="g", clone="lab", cut=CutLatest()))
        await carried_out(site, allow(ONE))
        seen = site.exports.seen_by(OTHER)
        assert seen.names() == ["g/w", "lab/w"]
        for name in ("g/v@nightly", "lab/v"):
            with pytest.raises(NotAllowed):
                seen.find(name)
            assert site.exports.seen_by(ONE).find(name).name == name

    run(work)


def test_those_who_would_be_cut_off_are_named_first() -> None:
    async def work(site: Site) -> None:
        writer, reader = connect(site, OTHER), connect(site, CERT)
        assert "client uid:1002, client cert:vmhost1" in await refused(site, allow(ONE), Busy)
        assert "client cert:vmhost1" in await refused(site, allow(OTHER), Busy)
        done = await carried_out(site, allow(CERT, "ro", force=True))
        assert sorted(done.closed) == ["client cert:vmhost1", "client uid:1002"]  # it was writing
        assert not writer.there
        assert not reader.there

    run(work)


def test_a_right_that_suffices_leaves_its_host_connected() -> None:
    async def work(site: Site) -> None:
        await carried_out(site, allow(CERT, "ro"))
        reader = connect(site, CERT)
        assert not reader.writes
        done = await carried_out(site, allow(ONE))
        assert (done.closed, reader.there) == ([], True)
        assert [(e.host, e.right, e.connections) for e in done.entries] == [(CERT, "ro", 1), (ONE, "rw", 0)]

    run(work)


def test_taking_it_back() -> None:
    async def work(site: Site) -> None:
        await carried_out(site, allow(ONE))
        await carried_out(site, allow(CERT))
        there = connect(site, ONE)
        assert "client uid:1001" in await refused(site, disallow(ONE), Busy)
        done = await carried_out(site, disallow(ONE, force=True))
        assert (done.closed, there.there) == (["client uid:1001"], False)
        await refused(site, disallow(ONE), NotFound)
        # Without the last one it would be open to all.
        assert "is the last on the list" in await refused(site, disallow(CERT), Refused)
        done = await carried_out(site, disallow(None))
        assert done.everybody
        assert site.exports.seen_by(NOBODY).names() == ["g/v", "g/w"]

    run(work)


def test_a_list_has_an_end() -> None:
    async def work(site: Site) -> None:
        for number in range(HOSTS_LISTED_MAX):
            site.exports.hosts.access.put("g", 1, f"uid:{number}", Right("ro"))
        with pytest.raises(Refused, match=str(HOSTS_LISTED_MAX)):
            site.exports.hosts.access.put("g", 1, "cert:more", Right("ro"))
        site.exports.hosts.access.put("g", 1, "uid:1", Right("rw"))

    run(work)


def test_a_list_goes_with_its_volume_and_outlives_the_daemon() -> None:
    async def whole() -> None:
        parent = short_directory()
        site = await make_one_site(parent, "a")
        try:
            await carried_out(site, VolumeCreate(group="g", volume="v", size_bytes=1 << 20))
            await carried_out(site, allow(ONE))
            await carried_out(site, GroupRename(group="g", new="h"))
            assert site.exports.seen_by(OTHER).names() == []
            assert site.exports.seen_by(ONE).names() == ["h/v"]
            await site.stop()
            site = open_site(parent / "a")
            await site.start()
            assert site.exports.seen_by(OTHER).names() == []
            assert site.exports.seen_by(ONE).names() == ["h/v"]
            await carried_out(site, GroupDelete(group="h", confirm="h"))
            await carried_out(site, VolumeCreate(group="h", volume="v", size_bytes=1 << 20))
            assert site.exports.seen_by(OTHER).names() == ["h/v"]
        finally:
            await site.stop()
            shutil.rmtree(parent)

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("1000", "uid:1000"),
        ("uid:0", "uid:0"),
        (str(UID_MAX), f"uid:{UID_MAX}"),
        ("vmhost1", "cert:vmhost1"),
        ("cert:vm-host.example", "cert:vm-host.example"),
        ("uid", "cert:uid"),
    ],
)
def test_hosts_as_people_write_them(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uid:",
        "uid:x",
        "uid:-1",
        "uid:01",
        str(UID_MAX + 1),
        "cert:",
        "cert:Ä",
        "Vm",
        "gid:1",
        "uid:1 ",
        "²",
    ],
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(UsageError, match="neither a certificate's name nor a user's number"):
        parse_host(text)
