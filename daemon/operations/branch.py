"""Commands about branches: list, compare with the head, drop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, takewhile

from daemon.operations.paging import Page, TimeSlices, beyond, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.operations.shapes import cut_info, time_of
from daemon.operations.waiting import wait_until
from daemon.site import Site
from engine.group.group import Group
from engine.history.branch_drop import check_droppable
from engine.history.branches import Branch, branches, find_branch, prefixes_of
from engine.index.view import VolumeView
from engine.peering.own_past import change_scan
from protocol.commands.base import check_confirm
from protocol.commands.branch import (
    BranchDiff,
    BranchDiffReply,
    BranchDrop,
    BranchDropReply,
    BranchFrame,
    BranchInfo,
    BranchList,
    BranchListReply,
    VolumeDiff,
)
from protocol.cut_text import time_text
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut

SLICE_BLOCKS = 16
DROP_WAIT_S = 60.0


@carries_out(BranchList)
async def list_branches(site: Site, command: BranchList) -> Page[BranchListReply]:
    """Every branch held here."""
    group = site.group(command.group)
    rows = (((branch.fork.position, branch.timeline), branch) for branch in branches(group))
    left = beyond(rows, start_of(command, tuple[int, int]))
    found, more = await rows_of(
        site, command, _counted(group, left), lambda counted: branch_info(site, group, *counted)
    )
    return Page(BranchListReply(branches=found), more)


def _counted(
    group: Group, rows: list[tuple[tuple[int, int], Branch]]
) -> Iterator[tuple[tuple[int, int], tuple[Branch, int] | None]]:
    """Branches and how many frames they have; None is a step in counting them."""
    for key, branch in rows:
        frames = 0
        for _ in prefixes_of(group, branch):
            frames += 1
            yield key, None
        # Dropped while others were counted, it is none any more.
        if branch.timeline in group.timelines and branch.timeline not in group.dropping:
            yield key, (branch, frames)


async def _info_of(site: Site, group: Group, branch: Branch) -> BranchInfo:
    slices, frames = TimeSlices(site), 0
    for _ in prefixes_of(group, branch):
        frames += 1
        await slices.pause()
    return branch_info(site, group, branch, frames)


def branch_info(site: Site, group: Group, branch: Branch, frames: int) -> BranchInfo:
    """A branch of so many frames."""
    first = branch.spans[0]
    prefix = group.reader.prefix_at(first.timeline, first.start)
    spans = group.timelines.lineage(branch.end.timeline, branch.end.position)
    inside = {span.timeline: span for span in branch.spans}
    newest = takewhile(lambda copy: copy.position >= first.start, group.copies.newest(spans))
    copies = [copy for copy in newest if copy.timeline in inside][::-1]
    end = cut_info(branch.end, time_of(group, branch.end))
    return BranchInfo(
        timeline=f"{branch.timeline:016x}",
        start=cut_info(branch.fork, time_of(group, branch.fork)),
        to=end,
        bytes=branch.journal_bytes,
        frames=frames,
        writer=site.name_of(group.timelines.get(branch.timeline).writer),
        began=time_text(prefix.utc_ns) if prefix else None,
        ended=end.time,
        backups=[copy.label or f"{copy.id:016x}" for copy in copies],
        exports=[f"{group.name}/{name}@{branch.end}" for name in sorted(group.volumes.at(spans))],
    )


@carries_out(BranchDiff)
async def diff(site: Site, command: BranchDiff) -> BranchDiffReply:
    """What a branch has that the head has not."""
    group = site.group(command.group)
    branch = find_branch(group, int(command.timeline, 16))
    frames = await _first_frames(site, group, branch, command.limit)
    spans = group.timelines.lineage(branch.end.timeline, branch.end.position)
    here = group.volumes.by_id(group.spans())
    volumes = []
    for name, volume in sorted(group.volumes.at(spans).items()):
        now = here.get(volume.id)
        if now is None:
            volumes.append(VolumeDiff(volume=name, differing_bytes=volume.size_bytes, extents=[]))
            continue
        extents = await _compare(site, group, group.kept.view_at(name, branch.end), group.live_view(now))
        volumes.append(
            VolumeDiff(
                volume=name,
                differing_bytes=sum(length for _, length in extents),
                extents=extents[: command.limit],
            )
        )
    return BranchDiffReply(branch=await _info_of(site, group, branch), frames=frames, volumes=volumes)


async def _first_frames(site: Site, group: Group, branch: Branch, limit: int) -> list[BranchFrame]:
    slices, frames = TimeSlices(site), list[BranchFrame]()
    for prefix in islice(prefixes_of(group, branch), limit):
        # Read whole: damage in it is an error, and not a line of the list.
        next(iter(group.reader.frames(prefix.timeline, prefix.position, prefix.position + 1, None)))
        frames.append(
            BranchFrame(
                position=str(Cut(prefix.timeline, prefix.position)),
                time=time_text(prefix.utc_ns),
                bytes=prefix.frame_bytes,
                events=prefix.events,
            )
        )
        await slices.pause()
    return frames


@carries_out(BranchDrop)
async def drop(site: Site, command: BranchDrop) -> BranchDropReply:
    """Forget a branch; answers when its space is free."""
    group = site.group(command.group)
    branch = find_branch(group, int(command.timeline, 16))
    check_confirm(command.confirm, command.timeline, dry_run=False)
    info = await _info_of(site, group, branch)
    branch = find_branch(group, branch.timeline)  # again: others had their turns
    check_droppable(group, branch)
    before = group.segments.total_bytes()
    site.witness.write()  # it may still name the branch as what this site has
    site.drops(group).begin(branch)
    done = await wait_until(site, lambda: branch.timeline not in group.dropping, DROP_WAIT_S)
    freed_bytes = before - group.segments.total_bytes()
    return BranchDropReply(branch=info, done=done, freed_bytes=freed_bytes)


async def _compare(site: Site, group: Group, one: VolumeView, other: VolumeView) -> list[tuple[int, int]]:
    """(offset, bytes) of stretches that differ, by content; a few blocks at a time, so that hosts are served.
    Only those are looked at of which the two see other versions."""
    found: list[tuple[int, int]] = []
    slices, scan = TimeSlices(site), change_scan(group, one.volume, one, other, 0)
    size_bytes = max(one.size_bytes, other.size_bytes)
    while not scan.done:
        blocks = [block for block in scan.slice() if block * BLOCK_BYTES < size_bytes]
        await slices.pause()
        for at in range(0, len(blocks), SLICE_BLOCKS):
            for block in _differing(one, other, blocks[at : at + SLICE_BLOCKS]):
                offset = block * BLOCK_BYTES
                if found and found[-1][0] + found[-1][1] == offset:
                    found[-1] = (found[-1][0], found[-1][1] + BLOCK_BYTES)
                else:
                    found.append((offset, BLOCK_BYTES))
            await slices.pause()
    return found


def _differing(one: VolumeView, other: VolumeView, blocks: Sequence[int]) -> Iterator[int]:
    """Which of them differ."""
    with one.batch() as one_batch, other.batch() as other_batch:
        for block in blocks:
            same = one.find(one_batch, block) == other.find(other_batch, block)
            if not same and one.read_block(one_batch, block) != other.read_block(other_batch, block):
                yield block
