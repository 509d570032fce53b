"""Turning volumes back to a cut: one frame of `Revert` events, whatever the size and however much changed.

What was written after the cut is not touched: the state before the restore is itself a cut, and reverting to
it undoes the restore. Success is claimed only after the check of invariant 14: the new visibility is "from
here on, then what was visible at the cut", and sampled blocks read the same through both.

Source: the method's figure 6, for the case that both sites hold the history; for the others see
site_primary.rewrite_volume.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, replace

from engine.group.group import Group
from engine.history.visibility import Interval
from engine.history.volumes import Volume
from engine.index.view import VolumeView
from protocol.errors import Mismatch, NotFound, WrongState
from protocol.events import Revert
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from site_primary.resize_volume import sizes_of

SAMPLED_BLOCKS = 1000
STEP_BLOCKS = 64  # compared at one stroke, beside hosts of other volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """Which volumes go back to `cut`, and the cut `before` that undoes it. `untouched` did not exist at the
    cut."""

    volumes: tuple[Volume, ...]
    cut: Cut
    before: Cut
    untouched: tuple[str, ...]


def plan_restore(group: Group, names: list[str], cut: Cut, *, skip_missing: bool) -> RestorePlan:
    """What a restore would do. NotFound if a volume did not exist at the cut, unless those are skipped;
    WrongState if it was half way back to another cut there."""
    spans = group.timelines.lineage(cut.timeline, cut.position)
    then = {volume.id for volume in group.volumes.at(spans).values()}
    chosen, untouched = [], []
    for name in names:
        volume = group.volume(name)
        if volume.id in then:
            group.volumes.require_whole(spans, volume.id, f"{group.name}/{name}")
            chosen.append(volume)
        elif skip_missing:
            untouched.append(name)
        else:
            raise NotFound(
                f"volume {group.name}/{name} did not exist at that cut",
                subject=f"{group.name}/{name}",
                position=str(cut),
                next_step="`farshore backup list` shows cuts that hold it",
            )
    if not chosen:
        raise NotFound("no volume of the group existed at that cut", subject=group.name, position=str(cut))
    return RestorePlan(volumes=tuple(chosen), cut=cut, before=group.end, untouched=tuple(untouched))


def as_they_are(group: Group, plan: RestorePlan) -> RestorePlan:
    """The plan with its volumes as they are by now. WrongState if one was deleted or renamed since it was
    made: what was said of it is of another one, or none."""
    now = group.volumes.by_id(group.spans())
    for volume in plan.volumes:
        if volume.id not in now or now[volume.id].name != volume.name:
            name = f"{group.name}/{volume.name}"
            raise WrongState(
                f"{name} was deleted or renamed meanwhile",
                subject=name,
                position=str(group.end),
                next_step=f"`farshore volume list {group.name}`, then restore again",
            )
    return replace(plan, volumes=tuple(now[volume.id] for volume in plan.volumes))


def carry_out(group: Group, plan: RestorePlan) -> Cut:
    """Append the reverts in one frame; returns the frame's position. Written, not yet durable. Trimmed if the
    cut was given up since the plan was made."""
    group.kept.require(plan.cut)
    group.begin_writing()
    turns = [Revert(volume=volume.id, cut=plan.cut) for volume in plan.volumes]
    frame = group.append_records([*turns, *sizes_of(group, plan.volumes, plan.cut)])
    return Cut(frame.prefix.timeline, frame.prefix.position)


def check_restored(group: Group, plan: RestorePlan, rng: random.Random) -> Generator[None, None, int]:
    """Compare live with the cut, step by step: visibilities, and `SAMPLED_BLOCKS` blocks a volume. What is
    compared is the cut where it begins, whatever is written since. Returns the number of blocks compared;
    Mismatch names the first that differs."""
    end, leases = group.end, group.kept.leases
    now = group.volumes.by_id(group.spans())
    held = [leases.take("restored", cut) for cut in (plan.cut, end)]
    compared = 0
    try:
        for volume in (now[each.id] for each in plan.volumes):
            live, past = group.kept.view_of(volume.id, end), group.kept.view_of(volume.id, plan.cut)
            if _since(live, plan.before) != past.intervals or live.size_bytes != past.size_bytes:
                raise _mismatch(group, volume, plan, "its visibility is not the cut's")
            sample = sample_blocks(volume, rng)
            for at in range(0, len(sample), STEP_BLOCKS):
                yield
                _compare_blocks(group, volume, plan, (live, past), sample[at : at + STEP_BLOCKS])
            compared += len(sample)
    finally:
        leases.release(*held)
    return compared


def sample_blocks(volume: Volume, rng: random.Random) -> list[int]:
    """Blocks to compare after a restore, in order."""
    blocks = -(-volume.size_bytes // BLOCK_BYTES)
    return sorted(rng.sample(range(blocks), min(SAMPLED_BLOCKS, blocks)))


def _since(live: VolumeView, before: Cut) -> tuple[Interval, ...]:
    """What is visible but for what was written after the restore."""
    newest, *older = live.intervals
    newest = newest._replace(high=before.position)
    return (newest, *older) if newest.low < newest.high else tuple(older)


def _compare_blocks(
    group: Group, volume: Volume, plan: RestorePlan, views: tuple[VolumeView, VolumeView], blocks: list[int]
) -> None:
    live, past = views
    with live.batch() as batch:
        for block in blocks:
            # The same version is the same bytes: a read of each, cold, would keep hosts waiting for a second.
            if live.find(batch, block) == past.find(batch, block):
                continue
            if live.read_block(batch, block) != past.read_block(batch, block):
                raise _mismatch(group, volume, plan, f"block {block} differs")


def _mismatch(group: Group, volume: Volume, plan: RestorePlan, what: str) -> Mismatch:
    name = f"{group.name}/{volume.name}"
    return Mismatch(
        f"{name} was turned back, but {what}",
        subject=name,
        position=str(plan.cut),
        next_step=f"leave it offline; `farshore restore volume {name} --at {plan.before}` undoes the restore",
    )
