"""Commands about branches: list, compare with the head, drop."""

from __future__ import annotations

import asyncio
from itertools import takewhile

from daemon.operations.paging import Page, beyond, rows_of, start_of
from daemon.operations.registry import carries_out
from daemon.operations.shapes import cut_info, time_of
from daemon.operations.waiting import wait_until
from daemon.site import Site
from engine.group.group import Group
from engine.history.branch_drop import check_droppable
from engine.history.branches import Branch, branches, find_branch
from engine.index.view import VolumeView
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

SLICE_BLOCKS = 4096
DROP_WAIT_S = 60.0


@carries_out(BranchList)
async def list_branches(site: Site, command: BranchList) -> Page[BranchListReply]:
    """Every branch held here."""
    group = site.group(command.group)
    rows = (((branch.fork.position, branch.timeline), branch) for branch in branches(group))
    start = start_of(command, tuple[int, int])
    found, more = await rows_of(
        site, command, beyond(rows, start), lambda branch: branch_info(site, group, branch)
    )
    return Page(BranchListReply(branches=found), more)


def branch_info(site: Site, group: Group, branch: Branch) -> BranchInfo:
    """A branch."""
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
        frames=sum(
            1 for span in branch.spans for _ in group.reader.prefixes(span.timeline, span.start, span.end)
        ),
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
    frames: list[BranchFrame] = []
    for span in branch.spans:
        for prefix in group.reader.prefixes(span.timeline, span.start, span.end):
            if len(frames) == command.limit:
                break
            # Read whole: damage in it is an error, and not a line of the list.
            next(iter(group.reader.frames(span.timeline, prefix.position, prefix.position + 1, None)))
            frames.append(
                BranchFrame(
                    position=str(Cut(span.timeline, prefix.position)),
                    time=time_text(prefix.utc_ns),
                    bytes=prefix.frame_bytes,
                    events=prefix.events,
                )
            )
    spans = group.timelines.lineage(branch.end.timeline, branch.end.position)
    here = group.volumes.by_id(group.spans())
    volumes = []
    for name, volume in sorted(group.volumes.at(spans).items()):
        now = here.get(volume.id)
        if now is None:
            volumes.append(VolumeDiff(volume=name, differing_bytes=volume.size_bytes, extents=[]))
            continue
        extents = await _compare(group.kept.view_at(name, branch.end), group.live_view(now))
        volumes.append(
            VolumeDiff(
                volume=name,
                differing_bytes=sum(length for _, length in extents),
                extents=extents[: command.limit],
            )
        )
    return BranchDiffReply(branch=branch_info(site, group, branch), frames=frames, volumes=volumes)


@carries_out(BranchDrop)
async def drop(site: Site, command: BranchDrop) -> BranchDropReply:
    """Forget a branch; answers when its space is free."""
    group = site.group(command.group)
    branch = find_branch(group, int(command.timeline, 16))
    check_confirm(command.confirm, command.timeline, dry_run=False)
    check_droppable(group, branch)
    info = branch_info(site, group, branch)
    before = group.segments.total_bytes()
    site.witness.write()  # it may still name the branch as what this site has
    site.drops(group).begin(branch)
    done = await wait_until(site, lambda: branch.timeline not in group.dropping, DROP_WAIT_S)
    freed_bytes = before - group.segments.total_bytes()
    return BranchDropReply(branch=info, done=done, freed_bytes=freed_bytes)


async def _compare(one: VolumeView, other: VolumeView) -> list[tuple[int, int]]:
    """(offset, bytes) of stretches that differ, by content; a slice at a time, so that hosts are served."""
    found: list[tuple[int, int]] = []
    size = max(one.size_bytes, other.size_bytes)
    for first in range(0, -(-size // BLOCK_BYTES), SLICE_BLOCKS):
        await asyncio.sleep(0)
        end = min(first + SLICE_BLOCKS, -(-size // BLOCK_BYTES))
        with one.batch() as one_batch, other.batch() as other_batch:
            for block in range(first, end):
                place, other_place = one.find(one_batch, block), other.find(other_batch, block)
                if place == other_place:
                    continue
                if one.read_block(one_batch, block) == other.read_block(other_batch, block):
                    continue
                at = block * BLOCK_BYTES
                if found and found[-1][0] + found[-1][1] == at:
                    found[-1] = (found[-1][0], found[-1][1] + BLOCK_BYTES)
                else:
                    found.append((at, BLOCK_BYTES))
    return found
