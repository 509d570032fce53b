"""Reclaim at random against an oracle: every kept cut stays what it was, byte for byte; others are refused.

The journal's segments are small, and truncations happen when the test says: it sets the window to nothing, or
to everything. What is compared is what `engine.retention.reclaim` says can be read, and that it says so of
each backup, of each lease, and of everything above the horizon.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.group.settings import GroupSettings
from protocol.errors import Trimmed
from protocol.events import TRIM, WRITE, ZERO, CopyDeleted, Row
from protocol.limits import BLOCK_BYTES
from protocol.positions import POSITION_MAX, Cut
from site_primary.backup import take_backup
from site_primary.restore_volume import carry_out, plan_restore
from tests.unit.engine.group_rig import GroupRig, memory_directory

pytestmark = pytest.mark.usefixtures("run_sizes")

BLOCKS = 24
KEEP_ALL = GroupSettings(journal_limit_bytes=POSITION_MAX, reserve_bytes=0)
KEEP_NOTHING = replace(KEEP_ALL, window_bytes=0)
SEEDS = range(int(os.environ.get("FARSHORE_FOLD_SEEDS", "40")))

Snapshot = dict[str, bytes]


class Story:
    """One group's life: what its volumes hold, and what they held at each frame boundary."""

    def __init__(self, seed: int, rig: GroupRig) -> None:
        self.rng = random.Random(seed)
        self.rig = rig
        self.now: dict[str, bytearray] = {}
        self.past: dict[Cut, Snapshot] = {}
        self.backups: dict[int, Cut] = {}
        self.leased: dict[str, Cut] = {}
        self.labels = 0
        for name in ("root", "data"):
            rig.create(name, BLOCKS)
            self.now[name] = bytearray(BLOCKS * BLOCK_BYTES)
            self.note()

    def note(self) -> None:
        """What the volumes hold belongs to the journal's end."""
        self.past[self.rig.end] = {name: bytes(data) for name, data in self.now.items()}

    def steps(self) -> tuple[tuple[int, Callable[[], object]], ...]:
        """What may happen, and how often."""
        return (
            (40, self.write),
            (6, self.back_up),
            (3, self.delete),
            (4, self.lease),
            (3, self.release),
            (4, self.turn_back),
            (8, self.rig.checkpoint),
            (8, self.truncate),
            (3, self.restart),
            (2, self.sweep),
        )

    def step(self) -> None:
        """One thing that happens."""
        steps = self.steps()
        self.rng.choices([do for _, do in steps], [weight for weight, _ in steps])[0]()
        self.note()

    def write(self) -> None:
        """One frame of writes and zeroed ranges."""
        name = self.rng.choice(sorted(self.now))
        rows, payload = self.rows(self.now[name], self.rig.group.volume(name).id)
        self.rig.group.append(rows, payload, len(payload) * BLOCK_BYTES)

    def rows(self, data: bytearray, volume: int) -> tuple[list[Row], list[bytes]]:
        """Rows of a frame with their payload, done to `data` too."""
        rows: list[Row] = []
        payload: list[bytes] = []
        for _ in range(self.rng.randint(1, 4)):
            first = self.rng.randrange(BLOCKS)
            count = self.rng.randint(1, min(4, BLOCKS - first))
            kind = self.rng.choice((WRITE, WRITE, WRITE, ZERO, TRIM))
            rows.append((kind, volume, first, count))
            for block in range(first, first + count):
                content = self.rng.randbytes(16) * 256 if kind == WRITE else bytes(BLOCK_BYTES)
                data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = content
                if kind == WRITE:
                    payload.append(content)
        return rows, payload

    def back_up(self) -> None:
        """A backup of now, or of some cut that can still be read."""
        cut = self.some_readable() if self.rng.random() < 0.3 else None
        self.labels += 1
        label = f"b{self.labels}"
        group = self.rig.group
        take_backup(group, volume=None, label=label, cut=cut, pinned=False, rng=self.rng)
        self.note()
        copy = group.copies.find(group.spans(), label, "g")
        self.backups[copy.id] = copy.cut

    def delete(self) -> None:
        """One backup is not needed any more."""
        if self.backups:
            copy_id = self.rng.choice(sorted(self.backups))
            del self.backups[copy_id]
            self.rig.group.append_records([CopyDeleted(copy_id=copy_id)])

    def some_readable(self) -> Cut | None:
        """A cut of the past that is not trimmed, if the dice find one."""
        cut = self.rng.choice(sorted(self.past, key=lambda cut: cut.position))
        return cut if cut in self.past and self.rig.group.kept.readable(cut) else None

    def lease(self) -> None:
        cut = self.some_readable()
        if cut is not None:
            name = f"job:{self.rng.randrange(3)}"
            self.rig.group.kept.leases.hold(name, cut, durable=True)
            self.leased[name] = cut

    def release(self) -> None:
        if self.leased:
            name = self.rng.choice(sorted(self.leased))
            self.rig.group.kept.leases.release(name)
            del self.leased[name]

    def turn_back(self) -> None:
        cut = self.some_readable()
        if cut is None or self.past[cut].keys() != self.now.keys():
            return
        names = [name for name in sorted(self.now) if self.rng.random() < 0.7]
        if not names:
            return
        self.note()
        carry_out(self.rig.group, plan_restore(self.rig.group, names, cut, skip_missing=False))
        for name in names:
            self.now[name] = bytearray(self.past[cut][name])

    def truncate(self) -> None:
        """As much as may be, or one segment."""
        group = self.rig.group
        group.settings = KEEP_NOTHING
        if self.rng.random() < 0.5:
            self.rig.checkpoint()
        self.rig.sync()
        self.rig.settle(self.rng.choice((0.0, 3.0)))
        group.settings = KEEP_ALL

    def sweep(self) -> None:
        self.rig.group.reclaim.sweep()
        self.rig.settle(1.0)

    def restart(self) -> None:
        self.rig.reopen()

    def check(self, rig: GroupRig | None = None) -> tuple[int, int]:
        """Cuts that can be read and cuts that are refused."""
        rig = rig or self.rig
        kept = rig.group.kept
        readable = refused = 0
        for cut, snapshot in self.past.items():
            if kept.readable(cut):
                readable += 1
                for name, expected in snapshot.items():
                    assert rig.read(name, cut) == expected, f"{name} at {cut}"
            else:
                refused += 1
                with pytest.raises(Trimmed):
                    kept.require(cut)
        for name, data in self.now.items():
            assert rig.read(name) == bytes(data), name
        return readable, refused

    def check_kept(self) -> None:
        """Nothing is given up that someone counts on."""
        group = self.rig.group
        horizon = group.kept.horizon()
        for cut in [*self.backups.values(), *self.leased.values()]:
            assert group.kept.readable(cut)
        for cut in self.past:
            if group.holds_cut(cut) and (horizon is None or cut.position >= horizon.position):
                assert group.kept.readable(cut)


@pytest.mark.usefixtures("tiny_segments")
@pytest.mark.parametrize("seed", SEEDS)
def test_kept_cuts_stay_what_they_were(seed: int) -> None:
    directory = memory_directory()
    rig = GroupRig(directory, seed=seed, settings=KEEP_ALL)
    rig.open()
    try:
        story = Story(seed, rig)
        for at in range(160):
            story.step()
            if at % 20 == 0:
                story.check_kept()
                story.check()
        story.truncate()
        story.check_kept()
        story.check()
        rig.reopen()
        story.check_kept()
        story.check()
    finally:
        rig.drop()
        shutil.rmtree(directory)
