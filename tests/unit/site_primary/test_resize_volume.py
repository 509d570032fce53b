"""Volumes that change their size and name: what every cut shows, at both sites, whatever comes in between."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from engine.steps import at_once
from protocol.errors import FarshoreError
from protocol.events import VolumeCreated, VolumeDeleted, VolumeRenamed, VolumeResized
from protocol.limits import BLOCK_BYTES, VOLUME_CHANGES_MAX
from protocol.positions import Cut
from site_primary.resize_volume import resize
from site_primary.restore_volume import carry_out, check_restored, plan_restore
from site_primary.rewrite_volume import begin_rewrite, end_rewrite
from site_primary.write_path import WriteBatch
from tests.unit.engine.group_rig import GroupRig, follow

MakeRig = Callable[..., GroupRig]


def to_blocks(rig: GroupRig, name: str, blocks: int) -> Cut:
    """Give it that size; the cut before."""
    before = rig.end
    resize(rig.group, rig.group.volume(name), blocks * BLOCK_BYTES)
    return before


def restore(rig: GroupRig, name: str, cut: Cut) -> None:
    plan = plan_restore(rig.group, [name], cut, skip_missing=False)
    carry_out(rig.group, plan)
    at_once(check_restored(rig.group, plan, random.Random(1)))


def test_each_cut_keeps_the_size_that_it_had(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a", b"b", b"c", b"d")
    grown = to_blocks(rig, "root", 6)
    rig.write(volume, 5, b"f")
    shrunk = to_blocks(rig, "root", 2)
    for _ in range(2):
        assert rig.letters("root") == "ab"
        assert rig.letters("root", grown) == "abcd"
        assert rig.letters("root", shrunk) == "abcd.f"
        rig.checkpoint()
        rig.reopen()


def test_what_lay_past_the_end_is_not_read_after_it_grew(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a", b"b", b"c", b"d")
    to_blocks(rig, "root", 2)
    to_blocks(rig, "root", 8)
    assert rig.letters("root") == "ab......"


def test_not_even_if_the_kill_came_between_the_size_and_the_zeroes(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a", b"b", b"c", b"d")
    rig.group.append_records([VolumeResized(volume=volume, size_bytes=2 * BLOCK_BYTES)])
    rig.sync()
    rig.reopen()
    assert rig.letters("root") == "ab"
    to_blocks(rig, "root", 3)
    to_blocks(rig, "root", 4)
    assert rig.letters("root") == "ab.."


def test_a_restore_brings_the_size_back_with_the_bytes_in_one_frame(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a", b"b", b"c", b"d")
    before = to_blocks(rig, "root", 2)
    rig.write(volume, 0, b"x")
    small = rig.end
    restore(rig, "root", before)
    frames = list(rig.group.reader.prefixes(small.timeline, small.position, rig.end.position))
    assert [frame.events for frame in frames] == [2]
    assert rig.letters("root") == "abcd"
    restore(rig, "root", small)
    assert rig.letters("root") == "xb"
    to_blocks(rig, "root", 4)
    assert rig.letters("root") == "xb.."


def test_a_restore_by_writes_does_too(rig: GroupRig) -> None:
    volume = rig.create("root", 2)
    cut = to_blocks(rig, "root", 4)
    volumes = [rig.group.volume("root")]
    begin_rewrite(rig.group, volumes, cut, rig.end)
    assert rig.group.volume("root").size_bytes == 4 * BLOCK_BYTES
    end_rewrite(rig.group, volumes, cut)
    assert rig.group.volume("root").size_bytes == 2 * BLOCK_BYTES
    assert rig.group.volumes.half_way(rig.group.spans(), volume) is None


def test_a_row_past_every_size_that_it_had_is_refused(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    to_blocks(rig, "root", 8)
    to_blocks(rig, "root", 2)
    rig.write(volume, 7, b"z")  # nobody's, and zeroed before it is anybody's
    with pytest.raises(FarshoreError):
        rig.write(volume, 8, b"z")
    to_blocks(rig, "root", 8)
    assert rig.letters("root") == "........"


def test_names_at_cuts(rig: GroupRig) -> None:
    one, two = rig.create("root", 2), rig.create("data", 2)
    rig.write(one, 0, b"a")
    rig.write(two, 0, b"b")
    before = rig.end
    rename = rig.group.append_records
    rename([VolumeRenamed(volume=one, name="old")])
    assert rig.letters("old") == "a."
    assert rig.letters("old", before) == "a."  # by the name that it has now
    assert rig.letters("root", before) == "a."  # and by the one that it had
    with pytest.raises(FarshoreError):
        rig.letters("root")
    rename([VolumeRenamed(volume=two, name="root")])
    assert (rig.letters("root"), rig.letters("root", before)) == ("b.", "a.")
    # Names were exchanged, in a way: what is restored is the volume, not the name.
    rig.write(two, 1, b"z")
    restore(rig, "root", before)
    assert (rig.letters("root"), rig.letters("old")) == ("b.", "a.")
    assert rig.group.volumes.at(rig.group.spans()).keys() == {"old", "root"}


def test_a_name_of_a_deleted_volume_can_be_taken(rig: GroupRig) -> None:
    one = rig.create("one", 2)
    two = rig.create("two", 2)
    rig.group.append_records([VolumeDeleted(volume=two)])
    rig.group.append_records([VolumeRenamed(volume=one, name="two")])
    assert rig.group.volume("two").id == one


def test_sizes_change_only_so_often(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    history = rig.group.volumes
    for at in range(VOLUME_CHANGES_MAX):
        history.changed(1, 1000 + at, VolumeResized(volume=volume, size_bytes=BLOCK_BYTES))
    with pytest.raises(FarshoreError, match="g"):
        history.require_change("g")


@pytest.mark.parametrize("seed", range(100))
def test_every_cut_of_a_random_life_at_both_sites(make_rig: MakeRig, seed: int) -> None:
    """Writes, sizes, restores, checkpoints and kills in any order, against a model of bytes."""
    rng = random.Random(seed)
    rig = make_rig("one", seed=seed)
    other = make_rig("other", site="par", world=rig.world)
    volume = rig.create("root", 4)
    now = [0] * 4
    cuts: dict[Cut, list[int]] = {}

    def text(blocks: list[int]) -> str:
        return "".join(chr(each) if each else "." for each in blocks)

    for step in range(40):
        cuts[rig.end] = list(now)
        match rng.randrange(8):
            case 0 | 1 | 2:
                block = rng.randrange(len(now))
                now[block] = 97 + step % 26
                rig.write(volume, block, bytes([now[block]]))
            case 3 | 4:
                blocks = rng.randint(1, 9)
                to_blocks(rig, "root", blocks)
                now = (now + [0] * blocks)[:blocks]
            case 5:
                cut = rng.choice(list(cuts))
                restore(rig, "root", cut)
                now = [*cuts[cut]]
            case 6:
                rig.checkpoint()
            case 7:
                rig.sync()
                rig.reopen()
                rig.group.begin_writing()
        assert rig.letters("root") == text(now)
    follow(rig, other)
    other.checkpoint()
    for each in (rig, other):
        each.sync()
        each.reopen()
        assert each.letters("root") == text(now)
        for cut, then in cuts.items():
            assert each.letters("root", cut) == text(then), str(cut)


@pytest.mark.parametrize("seed", range(100))
def test_sizes_to_the_byte(make_rig: MakeRig, seed: int) -> None:
    """The same with any size, and writes as hosts make them: of any length, at any offset."""
    rng = random.Random(seed)
    rig = make_rig("one", seed=seed)
    size = rng.randint(1, 5 * BLOCK_BYTES)
    rig.group.begin_writing()
    rig.group.append_records([VolumeCreated(name="root", size_bytes=size)])
    now = bytearray(size)
    cuts: dict[Cut, bytes] = {}
    for step in range(40):
        cuts[rig.end] = bytes(now)
        volume = rig.group.volume("root")
        batch = WriteBatch(
            rig.group, volume.id, volume.size_bytes, lambda: rig.group.live_view(rig.group.volume("root"))
        )
        match rng.randrange(7):
            case 0 | 1 | 2:
                at = rng.randrange(len(now))
                length = rng.randint(1, len(now) - at)
                data = bytes([97 + step % 26]) * length
                batch.write(at, memoryview(data))
                now[at : at + length] = data
            case 3:
                at = rng.randrange(len(now))
                length = rng.randint(1, len(now) - at)
                batch.zero(at, length, trim=False)
                now[at : at + length] = bytes(length)
            case 4 | 5:
                size = rng.randint(1, 6 * BLOCK_BYTES)
                resize(rig.group, volume, size)
                now = bytearray((bytes(now) + bytes(size))[:size])
            case 6:
                cut = rng.choice(list(cuts))
                restore(rig, "root", cut)
                now = bytearray(cuts[cut])
        batch.commit()
        assert rig.read("root") == now
    rig.checkpoint()
    for cut, then in cuts.items():
        assert rig.read("root", cut) == then, str(cut)
