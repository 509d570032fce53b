"""Any sequence of host writes, backups, restores, checkpoints and restarts against a plain byte array (L4).

The oracle is one `bytearray` a volume and a copy of all of them at each cut worth remembering. After every
sequence each remembered cut, and the live volumes, are compared byte for byte: at the writing site, at a site
that followed its journal frame by frame, and at both again after a restart.
"""

from __future__ import annotations

import os
import random
import shutil

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.group.group import Group
from engine.index.view import VolumeView
from engine.steps import at_once
from protocol.errors import NotFound
from protocol.events import VolumeCreated, VolumeDeleted
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from site_primary.backup import take_backup
from site_primary.restore_volume import carry_out, check_restored, plan_restore
from site_primary.write_path import WriteBatch
from tests.unit.engine.group_rig import GroupRig, follow, memory_directory

pytestmark = pytest.mark.usefixtures("run_sizes")

ROOT_BLOCKS = 600  # room for zeroed ranges that the memtable keeps as ranges
SIZES = {"root": ROOT_BLOCKS * BLOCK_BYTES, "data": 40 * BLOCK_BYTES}
WRITE_BYTES_MAX = 12 * BLOCK_BYTES

GENERATE = [phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]

Snapshot = dict[str, bytes]

volumes = st.sampled_from(sorted(SIZES))
# Near the edges of blocks, where mistakes are.
places = st.builds(
    lambda block, shift: max(0, block * BLOCK_BYTES + shift),
    st.integers(0, 12) | st.integers(0, ROOT_BLOCKS),
    st.sampled_from([0, 0, 0, 1, -1, 512, -512, 1000]),
)
lengths = st.builds(
    lambda blocks, rest: max(1, blocks * BLOCK_BYTES + rest),
    st.integers(0, 3) | st.integers(0, WRITE_BYTES_MAX // BLOCK_BYTES - 1),
    st.sampled_from([0, 0, 0, 1, 512, 3584, 4095]),
)
spans = st.integers(1, 16) | st.integers(200, ROOT_BLOCKS)
requests = st.one_of(
    st.tuples(st.just("write"), places, lengths, st.integers(1, 255)),
    st.tuples(st.sampled_from(["zero", "trim"]), places, lengths | spans.map(lambda n: n * BLOCK_BYTES)),
)


class Volumes(RuleBasedStateMachine):
    """Two volumes in one group, at two sites."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = memory_directory()
        self.here = GroupRig(self.directory / "here")
        self.there = GroupRig(self.directory / "there", site="par", world=self.here.world)
        self.rng = random.Random(5)
        self.oracle: dict[str, bytearray] = {}
        self.remembered: list[tuple[Cut, Snapshot]] = []
        self.labels = 0

    @property
    def group(self) -> Group:
        return self.here.group

    @initialize()
    def begin(self) -> None:
        self.here.open()
        self.there.open()
        for name in sorted(SIZES):
            self.create(name)

    def create(self, name: str) -> None:
        self.group.begin_writing()
        self.group.append_records([VolumeCreated(name=name, size_bytes=SIZES[name])])
        self.oracle[name] = bytearray(SIZES[name])

    def remember(self, cut: Cut) -> None:
        self.remembered.append((cut, {name: bytes(data) for name, data in self.oracle.items()}))

    # What hosts do.

    @rule(name=volumes, batch=st.lists(requests, min_size=1, max_size=6))
    def write(self, name: str, batch: list[tuple[str, int, int, int] | tuple[str, int, int]]) -> None:
        """One wake-up's requests as one batch."""
        if name not in self.oracle:
            return
        oracle = self.oracle[name]
        volume = self.group.volume(name)
        writes = WriteBatch(self.group, volume.id, volume.size_bytes, lambda: self.group.live_view(volume))
        for kind, offset, length, *seed in batch:
            offset %= len(oracle)
            length = min(length, len(oracle) - offset)
            if kind == "write":
                data = random.Random(seed[0]).randbytes(length)
                writes.write(offset, memoryview(data))
                oracle[offset : offset + length] = data
                continue
            writes.zero(offset, length, trim=kind == "trim")
            if kind == "trim":
                # Partly covered blocks stay as they are.
                end = (offset + length) // BLOCK_BYTES * BLOCK_BYTES
                offset = -(-offset // BLOCK_BYTES) * BLOCK_BYTES
                length = max(0, end - offset)
            oracle[offset : offset + length] = bytes(length)
        writes.commit()

    # What operators do.

    @rule()
    def look(self) -> None:
        """Any frame boundary is a cut."""
        self.remember(self.group.end)

    @precondition(lambda self: self.group.volumes.at(self.group.spans()))
    @precondition(lambda self: self.oracle)
    @rule()
    def back_up(self) -> None:
        self.labels += 1
        label = f"backup-{self.labels}"
        take_backup(self.group, volume=None, label=label, cut=None, pinned=False, rng=self.rng)
        self.remember(self.group.copies.find(self.group.spans(), label, "g").cut)

    @precondition(lambda self: self.remembered)
    @rule(which=st.randoms(use_true_random=False), names=st.lists(volumes, min_size=1, unique=True))
    def restore(self, which: random.Random, names: list[str]) -> None:
        """Turn volumes back to a cut; what was there before is a cut, too, and undoes it."""
        cut, then = which.choice(self.remembered)
        names = [name for name in names if name in self.oracle]
        if not names:
            return
        before = self.group.end
        self.remember(before)
        try:
            plan = plan_restore(self.group, names, cut, skip_missing=True)
        except NotFound:
            return
        carry_out(self.group, plan)
        for volume in plan.volumes:
            self.oracle[volume.name] = bytearray(then[volume.name])
        at_once(check_restored(self.group, plan, self.rng))
        self.remember(self.group.end)

    @rule(name=volumes)
    def delete_or_create(self, name: str) -> None:
        """A name used again is another volume: it begins with zeroes, and cuts still show the first."""
        self.remember(self.group.end)
        if name in self.oracle:
            self.group.begin_writing()
            self.group.append_records([VolumeDeleted(volume=self.group.volume(name).id)])
            del self.oracle[name]
        else:
            self.create(name)

    # What happens by itself.

    @rule(slow=st.booleans())
    def checkpoint(self, slow: bool) -> None:
        """With a slow indexer the index has it long before the memtable lets it go."""
        self.here.indexer.hold = slow
        self.here.checkpoint()

    @rule()
    def checkpoint_ends(self) -> None:
        self.here.indexer.answer()

    @rule()
    def restart(self) -> None:
        self.here.reopen()

    @rule(frames=st.integers(1, 5))
    def ship(self, frames: int) -> None:
        follow(self.here, self.there, frames)

    @rule(restart=st.booleans())
    def checkpoint_there(self, restart: bool) -> None:
        self.there.checkpoint()
        if restart:
            self.there.reopen()

    # What must hold.

    @invariant()
    def live_blocks_read_right(self) -> None:
        """A few reads of any alignment now; all of it at the end."""
        for name, oracle in self.oracle.items():
            view = self.here.live(name)
            with view.batch() as batch:
                for _ in range(3):
                    offset = self.rng.randrange(len(oracle))
                    length = min(self.rng.choice([1, 512, 4096, 9000]), len(oracle) - offset)
                    assert view.read(batch, offset, length) == oracle[offset : offset + length]

    def teardown(self) -> None:
        try:
            if self.oracle or self.remembered:
                self.compare_everything()
        finally:
            for rig in (self.here, self.there):
                if hasattr(rig, "group"):
                    rig.drop()
            shutil.rmtree(self.directory)

    def compare_everything(self) -> None:
        follow(self.here, self.there)
        assert self.there.end == self.here.end
        assert self.there.group.head.digest == self.here.group.head.digest
        self.remember(self.group.end)
        for rig in (self.here, self.there):
            for _ in range(2):
                for name, oracle in self.oracle.items():
                    assert_same(rig.live(name), bytes(oracle))
                for cut, snapshot in self.remembered:
                    self.compare_cut(rig.group, cut, snapshot)
                rig.reopen()

    def compare_cut(self, group: Group, cut: Cut, snapshot: Snapshot) -> None:
        for name in SIZES:
            if name in snapshot:
                assert_same(group.kept.view_at(name, cut), snapshot[name])
            else:
                with pytest.raises(NotFound):
                    group.kept.view_at(name, cut)


def assert_same(view: VolumeView, expected: bytes) -> None:
    """Bytes, and what the map of holes says."""
    assert view.size_bytes == len(expected)
    with view.batch() as batch:
        found = view.read(batch, 0, len(expected))
    if found != expected:
        wrong = [
            at // BLOCK_BYTES
            for at in range(0, len(expected), BLOCK_BYTES)
            if found[at : at + BLOCK_BYTES] != expected[at : at + BLOCK_BYTES]
        ]
        raise AssertionError(f"blocks {wrong[:20]} differ ({len(wrong)} in all), intervals {view.intervals}")
    at = 0
    while at < len(expected):
        for length, holds_data in view.extents(at, len(expected) - at):
            assert holds_data or expected.count(0, at, at + length) == length, "a hole where there is data"
            at += length


def test_every_cut_equals_the_oracle_at_both_sites() -> None:
    """FARSHORE_MODEL_SHRINK=1 looks for a shorter sequence that fails, which may take minutes."""
    run_state_machine_as_test(
        Volumes,
        settings=settings(
            max_examples=int(os.environ.get("FARSHORE_MODEL_EXAMPLES", "30")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
