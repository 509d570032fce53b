"""Clones at random beside a group's own life, truncations included: each holds its own bytes and nobody
else's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from engine.group.clone_rows import CloneRow
from engine.group.open_clone import Clone
from engine.history.branch_drop import BranchDrops
from engine.history.branches import branches
from protocol.limits import BLOCK_BYTES
from tests.unit.engine.group_rig import GroupRig, memory_directory
from tests.unit.engine.retention.test_truncation_model import KEEP_ALL, Story

pytestmark = pytest.mark.usefixtures("run_sizes")

CLONES_MAX = 4
SEEDS = range(int(os.environ.get("FARSHORE_CLONE_SEEDS", "25")))


class CloneStory(Story):
    """A story with clones: what each volume of each holds, by the clone's name."""

    def __init__(self, seed: int, rig: GroupRig) -> None:
        self.clones: dict[str, dict[str, bytearray]] = {}
        self.made = 0
        super().__init__(seed, rig)

    def steps(self) -> tuple[tuple[int, Callable[[], object]], ...]:
        return (*super().steps(), (8, self.clone), (40, self.write_clone), (5, self.delete_clone))

    def open_clone(self, name: str) -> Clone:
        clone = self.rig.group.clones.get(name)
        assert clone is not None
        return clone

    def clone(self) -> None:
        cut = self.some_readable()
        if cut is None or len(self.clones) == CLONES_MAX:
            return
        self.made += 1
        name = f"clone{self.made}"
        group = self.rig.group
        volumes = group.volumes.at(group.timelines.lineage(cut.timeline, cut.position))
        row = CloneRow(
            name=name,
            group="g",
            cut=cut,
            timelines=(),
            volumes=tuple(volume.id for volume in volumes.values()),
            created_utc_ns=1,
            temporary=False,
            purpose="",
        )
        group.clones.create(row)
        self.clones[name] = {name: bytearray(data) for name, data in self.past[cut].items()}

    def write_clone(self) -> None:
        if not self.clones:
            return
        name = self.rng.choice(sorted(self.clones))
        volume = self.rng.choice(sorted(self.clones[name]) or [""])
        if volume:
            clone = self.open_clone(name)
            rows, payload = self.rows(self.clones[name][volume], clone.volume(volume).id)
            clone.append(rows, payload, len(payload) * BLOCK_BYTES)

    def delete_clone(self) -> None:
        if not self.clones:
            return
        name = self.rng.choice(sorted(self.clones))
        clone, group = self.open_clone(name), self.rig.group
        del self.clones[name]
        group.clones.stop(clone)
        BranchDrops(group, lambda _: None).begin(clone.branch())
        group.clones.forget(clone)
        if self.rng.random() < 0.5:
            self.rig.settle(3.0)

    def restart(self) -> None:
        super().restart()
        BranchDrops(self.rig.group, lambda _: None).resume()

    def check_clones(self) -> None:
        group = self.rig.group
        assert branches(group) == []
        assert {clone.name for clone in group.clones} == set(self.clones)
        for name, volumes in self.clones.items():
            clone = self.open_clone(name)
            assert sorted(clone.volumes()) == sorted(volumes)
            for volume, data in volumes.items():
                view = clone.view(clone.volume(volume))
                with view.batch() as batch:
                    assert view.read(batch, 0, len(data)) == bytes(data), f"{name}/{volume}"


@pytest.mark.parametrize("seed", SEEDS)
def test_clones_stay_what_was_written_to_them(seed: int) -> None:
    directory = memory_directory()
    rig = GroupRig(directory, seed=seed, settings=KEEP_ALL)
    rig.open()
    try:
        story = CloneStory(seed, rig)
        for at in range(200):
            story.step()
            if at % 20 == 0:
                story.check_clones()
                story.check()
        for again in (False, True):
            if again:
                story.restart()
            story.check_clones()
            story.check_kept()
            story.check()
        for _ in range(len(story.clones)):
            story.delete_clone()
        rig.settle(20.0)
        timelines = {span.timeline for span in rig.group.spans()}
        assert {timeline.id for timeline in rig.group.timelines.all()} == timelines
    finally:
        rig.drop()
        shutil.rmtree(directory)
