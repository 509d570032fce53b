"""A random history of one group: writes, zeroes, discards, reverts, checkpoints, restarts, volumes that come
and go and change their size; and what each volume held at every cut worth remembering."""

from __future__ import annotations

import random

from protocol.events import TRIM, WRITE, ZERO, Revert, Row, VolumeDeleted
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from site_primary.resize_volume import resize, sizes_of
from tests.unit.engine.group_rig import GroupRig, filled

BLOCKS = 400


class Content(dict[int, bytes]):
    """Block to 16 bytes that fill it; others, of `blocks` in all, are zeroes."""

    blocks = BLOCKS

    def copy(self) -> Content:
        """For another moment."""
        found = Content(self)
        found.blocks = self.blocks
        return found


class RandomHistory:
    """`at` maps cuts to the content of each volume then, by name."""

    def __init__(self, rig: GroupRig, seed: int) -> None:
        self.rig = rig
        self.rng = random.Random(seed)
        self.now: dict[str, Content] = {}
        self.at: dict[Cut, dict[str, Content]] = {}
        self.create("root")

    def create(self, name: str) -> None:
        self.rig.create(name, BLOCKS)
        self.now[name] = Content()

    def remember(self) -> Cut:
        """The cut here and now."""
        self.at[self.rig.end] = {name: content.copy() for name, content in self.now.items()}
        return self.rig.end

    def write(self) -> None:
        """One frame of several rows."""
        name = self.rng.choice(sorted(self.now))
        volume, content = self.rig.group.volume(name).id, self.now[name]
        rows: list[Row] = []
        payload: list[bytes] = []
        for _ in range(self.rng.randrange(1, 5)):
            kind = self.rng.choice([WRITE, WRITE, WRITE, ZERO, TRIM])
            longest = 8 if kind == WRITE or self.rng.random() < 0.8 else BLOCKS
            first = self.rng.randrange(content.blocks)
            count = min(self.rng.randrange(1, longest + 1), content.blocks - first)
            rows.append((kind, volume, first, count))
            for block in range(first, first + count):
                if kind == WRITE:
                    payload.append(self.rng.randbytes(16))
                    content[block] = payload[-1]
                else:
                    content.pop(block, None)
        self.rig.append(rows, *payload)

    def revert(self, cuts: list[Cut]) -> None:
        """Turn a volume back to one of these cuts."""
        if not cuts:
            return
        cut, name = self.rng.choice(cuts), self.rng.choice(sorted(self.now))
        volume = self.rig.group.volume(name)
        group = self.rig.group
        there = group.volumes.at(group.timelines.lineage(cut.timeline, cut.position)).get(name)
        if there is None or there.id != volume.id:
            return
        group.append_records([Revert(volume=volume.id, cut=cut), *sizes_of(group, [volume], cut)])
        self.now[name] = self.at[cut][name].copy()

    def resize(self) -> None:
        """Give a volume another size."""
        name = self.rng.choice(sorted(self.now))
        content, blocks = self.now[name], self.rng.randint(1, BLOCKS)
        group = self.rig.group
        resize(group, group.volume(name), blocks * BLOCK_BYTES)
        content.blocks = blocks
        for block in [block for block in content if block >= blocks]:
            del content[block]

    def step(self, cuts: list[Cut]) -> None:
        """Something happens; reverts go to one of `cuts`."""
        match self.rng.randrange(20):
            case 0:
                self.rig.reopen()
            case 1 | 2:
                self.rig.checkpoint()
            case 3:
                self.revert(cuts)
            case 4:
                if "data" in self.now:
                    self.rig.group.append_records([VolumeDeleted(volume=self.rig.group.volume("data").id)])
                    del self.now["data"]
                else:
                    self.create("data")
            case 5 | 6 | 7:
                self.remember()
            case 8:
                self.resize()
            case _:
                self.write()

    def run(self, steps: int) -> None:
        """Steps that may turn back to anywhere, and the last cut remembered."""
        for _ in range(steps):
            self.step(sorted(self.at))
        self.remember()


def assert_equal(rig: GroupRig, cut: Cut, expected: dict[str, Content]) -> None:
    """At a cut a site has exactly these volumes with exactly these bytes."""
    group = rig.group
    assert sorted(group.volumes.at(group.timelines.lineage(cut.timeline, cut.position))) == sorted(expected)
    for name, content in expected.items():
        data = rig.read(name, cut)
        assert len(data) == content.blocks * BLOCK_BYTES
        for block in range(content.blocks):
            here = data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            assert here == filled(content.get(block, b"\0")), f"{name} block {block} at {cut}"
