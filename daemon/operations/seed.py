"""Commands about seeds: begin and end an import, list and remove them.

The console writes the two files (protocol.seeds) between begin and end, so that an image is read with the
rights of whoever has it. What it wrote is looked at here only as far as lengths go: a seed is never believed.
"""

from __future__ import annotations

from daemon.operations.paging import Page, beyond, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.site import Site
from engine.group.site_state import Role
from engine.history.seeds import (
    Seed,
    SeedRemoval,
    SpoiltSeed,
    digests_of,
    directory_of,
    give_up,
    image_of,
    seeds_of,
    unfinished,
)
from engine.ports.awaited import synced
from engine.ports.disk import DiskFile
from protocol.commands.seed import (
    SeedBegin,
    SeedBeginReply,
    SeedInfo,
    SeedKeep,
    SeedList,
    SeedListReply,
    SeedRemove,
)
from protocol.errors import NoSpace, NotFound, Refused, WrongState
from protocol.limits import GROUPS_MAX, VOLUMES_PER_GROUP_MAX
from protocol.seeds import HEADER_BYTES, SEEDS, chunks_of, digest_at, size_in


@carries_out(SeedList)
async def list_seeds(site: Site, command: SeedList) -> Page[SeedListReply]:
    """Those that may be used."""
    groups = [command.group] if command.group else site.disk.list_directory(SEEDS)
    names = (((group, volume), (group, volume)) for group in groups for volume in seeds_of(site.disk, group))
    numbered = beyond(names, start_of(command, tuple[str, str]))
    seeds, more = await rows_of(site, command, numbered, lambda name: _info(site, *name))
    return Page(SeedListReply(seeds=seeds), more)


@carries_out(SeedBegin)
async def begin(site: Site, command: SeedBegin) -> SeedBeginReply:
    """Two empty files for an import to fill."""
    group, volume = command.group, command.volume
    _check_wanted(site, group, volume)
    _check_room(site, command)
    SeedRemoval(site.disk, site.clock, group, volume, only_unfinished=True).begin()
    token = f"{site.rng.getrandbits(64):016x}"
    paths = [unfinished(path, token) for path in (image_of(group, volume), digests_of(group, volume))]
    site.disk.make_directory(directory_of(group))
    for path in paths:
        site.disk.replace_file(path, b"")
    image, digests = (str(site.directory / path) for path in paths)
    return SeedBeginReply(image=image, digests=digests, token=token)


def _check_wanted(site: Site, group: str, volume: str) -> None:
    """WrongState where a copy of the group cannot come to; Refused past the bounds."""
    name = f"{group}/{volume}"
    if site.has_group(group) and site.state.group(group).role is Role.PRIMARY:
        raise WrongState(
            f"group {group} is written at this site, and a seed is for one that gets a copy",
            subject=name,
            next_step=f"`farshore volume import FILE {name}` writes the image into the volume; to have the "
            f"other site's group here instead: `farshore group delete {group} --confirm {group}`",
        )
    if site.exports.clone(group) is not None:
        raise Refused(f"{group} is a clone", subject=group, next_step="`farshore clone list`")
    groups, seeds = site.disk.list_directory(SEEDS), seeds_of(site.disk, group)
    if (group not in groups and len(groups) >= GROUPS_MAX) or (
        volume not in seeds and len(seeds) >= VOLUMES_PER_GROUP_MAX
    ):
        raise Refused(
            f"a site keeps seeds of {GROUPS_MAX} groups, and {VOLUMES_PER_GROUP_MAX} of each, at most",
            subject=name,
            next_step="`farshore seed list`, `farshore seed remove G/V`",
        )


def _check_room(site: Site, command: SeedBegin) -> None:
    """NoSpace unless a seed fits beside what is kept free for the journals."""
    wanted = command.data_bytes + digest_at(chunks_of(command.data_bytes))
    free = site.disk.free_bytes() - site.config.reserve_bytes
    if wanted > free:
        raise NoSpace(
            f"the seed takes {wanted} bytes, and {max(0, free)} are free beside the reserve",
            subject=f"{command.group}/{command.volume}",
            next_step="make room on the file system of the data directory; `farshore seed list`",
        )


@carries_out(SeedKeep)
async def keep(site: Site, command: SeedKeep) -> SeedInfo:
    """What was filled becomes the seed: durable first, then by its name; the digests last."""
    group, volume = command.group, command.volume
    _check_wanted(site, group, volume)
    targets = image_of(group, volume), digests_of(group, volume)
    sources = [unfinished(path, command.token) for path in targets]
    files: list[DiskFile] = []
    try:
        for path in sources:
            files.append(site.disk.open(path))
        image, digests = files
        size_bytes = size_in(digests.pread(HEADER_BYTES, 0))
        if image.size() != size_bytes or digests.size() != digest_at(chunks_of(size_bytes)):
            raise ValueError("the files are not as long as they say")
        await synced(site.disk, files)
    except (FileNotFoundError, ValueError) as error:
        raise Refused(
            f"that import of {group}/{volume} is not there any more, or not whole: {error}",
            subject=f"{group}/{volume}",
            next_step="import it once more",
        ) from error
    finally:
        for file in files:
            file.close()
    give_up(site.disk, group, volume)
    for source, target in zip(sources, targets, strict=True):
        site.disk.rename(source, target)
        await synced(site.disk, [], [directory_of(group)])
    site.events.emit("seed.kept", group=group, object=f"{group}/{volume}", size_bytes=size_bytes)
    return SeedInfo(group=group, volume=volume, size_bytes=size_bytes)


@carries_out(SeedRemove)
async def remove(site: Site, command: SeedRemove) -> SeedInfo:
    """One goes, with what unfinished imports left."""
    group, volume = command.group, command.volume
    removal = SeedRemoval(site.disk, site.clock, group, volume)
    if not removal.left:
        _require(site, group, volume)
    found = _info(site, group, volume)
    removal.begin()
    site.events.emit("seed.removed", group=group, object=f"{group}/{volume}")
    return found


def _require(site: Site, group: str, volume: str) -> None:
    if volume not in seeds_of(site.disk, group):
        raise NotFound(
            f"there is no seed of {group}/{volume}",
            subject=f"{group}/{volume}",
            next_step="`farshore seed list`",
        )


def _info(site: Site, group: str, volume: str) -> SeedInfo:
    """With 0 bytes where there is none that could be used."""
    try:
        seed = Seed(site.disk, group, volume)
    except SpoiltSeed:
        return SeedInfo(group=group, volume=volume, size_bytes=0)
    seed.close()
    return SeedInfo(group=group, volume=volume, size_bytes=seed.size_bytes)
