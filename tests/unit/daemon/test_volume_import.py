"""An image that is written into a volume: nobody else sees it until it is whole (C49)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from daemon.operations import dispatch
from daemon.site import Site
from protocol.commands.backup import BackupCreate
from protocol.commands.restore import RestoreVolume
from protocol.commands.volume import VolumeCreate, VolumeOffline, VolumeOnline, VolumeShow
from protocol.commands.volume_import import VolumeFill, VolumeFilled
from protocol.cut_text import CutPosition
from protocol.errors import Busy, NotFound, WrongState
from tests.support.sites import short_directory
from tests.unit.daemon.stage import carried_out, make_one_site, open_site

ABOUT = {"group": "g", "volume": "v"}
BACKUP = BackupCreate(group="g", label="half")


async def require_closed(site: Site) -> None:
    """To hosts, to operators who would open it, and to backups."""
    with pytest.raises(WrongState, match="only a part of an image"):
        site.exports.find("g/v")
    with pytest.raises(WrongState, match="only a part of an image"):
        await dispatch(site, BACKUP)
    with pytest.raises(WrongState, match="only a part of an image") as refusal:
        await dispatch(site, VolumeOnline(**ABOUT))
    assert "volume import FILE g/v --confirm g/v" in refusal.value.next_step
    shown = await carried_out(site, VolumeShow(group="g", volume="v"))
    assert not shown.online
    assert "only a part of an image" in shown.offline_reason


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[Site]:
    try:
        yield site
    finally:
        await site.stop()


def test_c49_a_volume_with_half_an_image_is_closed_until_it_is_whole() -> None:
    """Also after a restart; a second import takes the place of one that did not end, and goes back as far."""

    async def play() -> None:
        parent = short_directory()
        async with running(await make_one_site(parent, "a")) as site:
            await carried_out(site, VolumeCreate(**ABOUT, size_bytes=1 << 20))
            first = await carried_out(site, VolumeFill(**ABOUT))
            await require_closed(site)
            assert site.exports.find(first.export).size_bytes == 1 << 20
        again = open_site(parent / "a")
        await again.start()
        async with running(again) as site:
            await require_closed(site)
            with pytest.raises(NotFound, match="is over"):
                site.exports.find(first.export)
            second = await carried_out(site, VolumeFill(**ABOUT))
            assert second.before == first.before
            with pytest.raises(WrongState, match="is over"):
                await dispatch(site, VolumeFilled(**ABOUT, token=first.token))
            await require_closed(site)
            assert (await carried_out(site, VolumeFilled(**ABOUT, token=second.token))).online
            assert not site.exports.find("g/v").read_only
            with pytest.raises(NotFound, match="is over"):
                site.exports.find(second.export)
            with pytest.raises(WrongState, match="is over"):
                await dispatch(site, VolumeFilled(**ABOUT, token=second.token))
            await carried_out(site, BACKUP)

    asyncio.run(play())


def test_c49_no_image_into_what_an_operator_closed() -> None:
    async def play() -> None:
        async with running(await make_one_site(short_directory(), "a")) as site:
            await carried_out(site, VolumeCreate(**ABOUT, size_bytes=1 << 20))
            await carried_out(site, VolumeOffline(group="g", volume="v"))
            with pytest.raises(WrongState, match="closed by an operator"):
                await dispatch(site, VolumeFill(**ABOUT))

    asyncio.run(play())


def test_c49_a_restore_ends_an_import() -> None:
    """Whoever wrote the image may write no more, also once the volume is whole again; and no other begins
    while it goes on."""

    async def play() -> None:
        async with running(await make_one_site(short_directory(), "a")) as site:
            await carried_out(site, VolumeCreate(**ABOUT, size_bytes=1 << 20))
            begun = await carried_out(site, VolumeFill(**ABOUT))
            key = ("g", site.group("g").volume("v").id)
            site.rewriting.add(key)
            with pytest.raises(Busy, match="a restore of g/v is under way"):
                await dispatch(site, VolumeFill(**ABOUT))
            site.rewriting.remove(key)
            before = CutPosition(timeline=int(begun.before.timeline, 16), position=begun.before.position)
            await carried_out(site, RestoreVolume(group="g", volume="v", cut=before, confirm="g/v"))
            with pytest.raises(NotFound, match="is over"):
                site.exports.find(begun.export)
            with pytest.raises(WrongState, match="is over"):
                await dispatch(site, VolumeFilled(**ABOUT, token=begun.token))
            with pytest.raises(WrongState, match="turned back"):
                await dispatch(site, VolumeFill(**ABOUT))

    asyncio.run(play())
