"""Keeping seeds: what an import may do and what it leaves, and when seeds go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from console.images.raw_file import RawSource
from console.images.seed_files import write_seed
from daemon.operations import dispatch
from daemon.site import Site
from protocol.commands.group import GroupDelete, GroupRename
from protocol.commands.pair import PairDelete
from protocol.commands.seed import SeedBegin, SeedBeginReply, SeedInfo, SeedKeep, SeedList, SeedRemove
from protocol.errors import NoSpace, NotFound, Refused, WrongState
from tests.support.sites import short_directory
from tests.unit.daemon.stage import carried_out, make_one_site, staged

CONTENT = b"seed" * 50_000
ABOUT = {"group": "g", "volume": "v"}


def on_a_site(play: Callable[[Site], Awaitable[None]]) -> None:
    async def run() -> None:
        site = await make_one_site(short_directory(), "a")
        try:
            await play(site)
        finally:
            await site.stop()

    asyncio.run(run())


async def begun(site: Site, data_bytes: int = 0, **about: str) -> SeedBeginReply:
    names, size = ABOUT | about, len(CONTENT)
    return await carried_out(site, SeedBegin(**names, size_bytes=size, data_bytes=data_bytes or size))


def fill(begin: SeedBeginReply, content: bytes = CONTENT) -> None:
    source = Path(f"{begin.image}.source")
    source.write_bytes(content)
    with RawSource(source) as raw:
        write_seed(raw, begin.image, begin.digests, lambda _: None)
    source.unlink()


async def import_seed(site: Site, **about: str) -> SeedInfo:
    begin = await begun(site, 0, **about)
    fill(begin)
    return await carried_out(site, SeedKeep(**(ABOUT | about), token=begin.token))


def there(path: Path) -> bool:
    return path.exists()


async def until_gone(path: Path) -> None:
    async with asyncio.timeout(10):
        while there(path):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)


def test_an_import_is_whole_or_nothing() -> None:
    async def play(site: Site) -> None:
        place = site.directory / "seeds" / "g"
        first = await begun(site)
        fill(first)
        assert (await carried_out(site, SeedList())).seeds == []
        # Another import of the same volume takes the place of one that did not end.
        second = await begun(site)
        assert not there(Path(first.image))
        with pytest.raises(Refused, match="not there any more"):
            await dispatch(site, SeedKeep(**ABOUT, token=first.token))
        with pytest.raises(Refused, match="not whole"):
            await dispatch(site, SeedKeep(**ABOUT, token=second.token))
        fill(second)
        kept = await carried_out(site, SeedKeep(**ABOUT, token=second.token))
        assert kept.size_bytes == len(CONTENT)
        assert sorted(path.name for path in place.iterdir()) == ["v.digests", "v.img"]
        assert (place / "v.img").read_bytes() == CONTENT
        # One that is begun leaves the seed as it is until it is kept.
        third = await begun(site)
        assert (await carried_out(site, SeedList(group="g"))).seeds == [kept]
        fill(third, b"other" * 3)
        assert (await carried_out(site, SeedKeep(**ABOUT, token=third.token))).size_bytes == 15
        assert sorted(path.name for path in place.iterdir()) == ["v.digests", "v.img"]
        with Path(third.image).parent.joinpath("v.img").open("r+b") as file:
            file.truncate(3)
        assert [seed.size_bytes for seed in (await carried_out(site, SeedList())).seeds] == [0]

    on_a_site(play)


def test_without_room_none_is_begun() -> None:
    async def play(site: Site) -> None:
        with pytest.raises(NoSpace, match="are free beside the reserve"):
            await begun(site, data_bytes=1 << 60)
        assert not (site.directory / "seeds").exists()

    on_a_site(play)


def test_one_volumes_goes_and_the_others_stay() -> None:
    async def play(site: Site) -> None:
        for volume in ("v", "v.img", "w"):
            await import_seed(site, volume=volume)
        await begun(site)
        await carried_out(site, SeedRemove(**ABOUT))
        assert [seed.volume for seed in (await carried_out(site, SeedList())).seeds] == ["v.img", "w"]
        with pytest.raises(NotFound):
            await dispatch(site, SeedRemove(**ABOUT))
        names = sorted(path.name for path in (site.directory / "seeds" / "g").iterdir())
        assert names == ["v.img.digests", "v.img.img", "w.digests", "w.img"]

    on_a_site(play)


def test_a_large_copy_goes_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.history.seeds.SEED_REMOVED_BYTES", 10_000)

    async def play(site: Site) -> None:
        await import_seed(site)
        image = site.directory / "seeds" / "g" / "v.img"
        await carried_out(site, SeedRemove(**ABOUT))
        assert 0 < image.stat().st_size < len(CONTENT)
        await until_gone(image.parent)

    on_a_site(play)


def test_they_go_with_their_group_and_by_its_name() -> None:
    async def play() -> None:
        async with staged(("good",), alone=("bad",)) as stage:
            await stage.paired("good")
            with pytest.raises(WrongState, match="is written at this site"):
                await begun(stage.a, group="good")
            await import_seed(stage.b, group="good")
            for site in (stage.a, stage.b):
                await dispatch(site, PairDelete(group="good", confirm="good"))
            await dispatch(stage.b, GroupRename(group="good", new="other"))
            seeds = (await carried_out(stage.b, SeedList())).seeds
            assert [(seed.group, seed.volume) for seed in seeds] == [("other", "v")]
            await dispatch(stage.b, GroupDelete(group="other", confirm="other"))
            await until_gone(stage.b.directory / "seeds" / "other")

    asyncio.run(play())
