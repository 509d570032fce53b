"""A dead site's group, read in place: the same cuts, the same bytes, and not a byte of it changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.offline.groups import GROUPS_DIRECTORY, DeadSite, OfflineGroup, offline_groups, open_offline
from protocol.errors import Corruption, NotFound
from protocol.events import WRITE
from protocol.limits import BLOCK_BYTES
from tests.sim.world import SimClock
from tests.unit.engine.group_rig import GroupRig, follow, memory_directory
from tests.unit.engine.random_history import RandomHistory, assert_equal
from tests.unit.engine.retention.test_truncation_model import KEEP_ALL, Story


@pytest.fixture
def home() -> Iterator[Path]:
    """A site's directory, whose `groups` are a rig's."""
    path = memory_directory()
    (path / GROUPS_DIRECTORY).mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


def site_of(home: Path, site: str = "lon") -> DeadSite:
    groups = home / GROUPS_DIRECTORY
    return DeadSite(directory=home, state_file=groups / "state.mdb", site_id=site)


def opened(site: DeadSite, rig: GroupRig) -> tuple[OfflineGroup, GroupRig]:
    """The group, and a rig to read it with."""
    found = open_offline(site, "g", SimClock(rig.world))
    shadow = GroupRig(rig.directory)
    shadow.group = found.group
    return found, shadow


def everything(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


@pytest.mark.usefixtures("tiny_segments")
@pytest.mark.parametrize("seed", range(8))
def test_every_cut_after_truncations_is_what_a_start_would_read(home: Path, seed: int) -> None:
    rig = GroupRig(home / GROUPS_DIRECTORY, seed=seed, settings=KEEP_ALL)
    rig.open()
    story = Story(seed, rig)
    ids = {name: rig.group.volume(name).id for name in story.now}
    for _ in range(120):
        story.step()
    rig.drop()
    before = everything(home)
    found, shadow = opened(site_of(home), rig)
    counts = story.check(shadow)
    assert found.group.end == shadow.end
    assert not found.notes
    found.close()
    assert everything(home) == before
    rig.open()
    try:
        assert story.check() == counts
        truncated = bool(rig.group.kept.retention.horizons)
    finally:
        rig.drop()
    alone = replace(site_of(home), with_index=False)
    if not truncated:
        found, shadow = opened(alone, rig)
        assert story.check(shadow) == counts
        found.close()
        return
    with pytest.raises(Corruption):
        open_offline(alone, "g", SimClock(rig.world))
    before = everything(home)
    found, shadow = opened(replace(alone, partial=True), rig)
    check_partial(found, shadow, story, ids)
    found.close()
    assert everything(home) == before


def check_partial(found: OfflineGroup, shadow: GroupRig, story: Story, ids: dict[str, int]) -> None:
    """Blocks written since are what they were at every cut from there on; others are zeroes, and never
    something older. Cuts before are refused."""
    group, since = found.group, found.since
    assert since is not None
    right = 0
    for cut, snapshot in story.past.items():
        if not group.holds_cut(cut) or cut.position < since.position:
            continue
        for volume in group.volumes.at(group.timelines.lineage(cut.timeline, cut.position)).values():
            expected = next(data for name, data in snapshot.items() if volume.id == ids[name])
            data = shadow.read(volume.name, cut)
            for at in range(0, len(data), BLOCK_BYTES):
                here = data[at : at + BLOCK_BYTES]
                assert here in (expected[at : at + BLOCK_BYTES], bytes(BLOCK_BYTES))
                right += any(here)
    assert right
    refused = [cut for cut in story.past if group.holds_cut(cut) and cut.position < since.position]
    for cut in refused:
        assert not group.kept.readable(cut)


@pytest.mark.parametrize("seed", range(4))
def test_from_the_journal_alone(home: Path, seed: int) -> None:
    """Reverts, restarts and volumes that come and go; at a site that followed, too."""
    one = GroupRig(home / GROUPS_DIRECTORY, seed=seed)
    one.open()
    history = RandomHistory(one, seed)
    history.run(80)
    one.drop()
    (one.directory / "g" / "index.mdb").unlink()
    for state in (True, False):
        if not state:
            (one.directory / "state.mdb").unlink()
        found, shadow = opened(site_of(home), one)
        assert len(found.notes) == (1 if state else 2)
        for cut, expected in history.at.items():
            assert_equal(shadow, cut, expected)
        found.close()


def test_a_followers_directory_reads_alike(home: Path, directory: Path) -> None:
    source = GroupRig(directory / "source", site="lon")
    source.open()
    history = RandomHistory(source, 3)
    history.run(60)
    target = GroupRig(home / GROUPS_DIRECTORY, site="par")
    target.open()
    follow(source, target)
    target.drop()
    source.drop()
    found, shadow = opened(site_of(home, "par"), target)
    for cut, expected in history.at.items():
        assert_equal(shadow, cut, expected)
    found.close()


def written(rig: GroupRig, letters: str) -> int:
    """A volume of which each block was written once, frame by frame; its id."""
    volume = rig.create("root", len(letters))
    for block, letter in enumerate(letters):
        rig.append([(WRITE, volume, block, 1)], letter.encode())
        rig.sync()
    return volume


@pytest.mark.parametrize("own", [True, False])
def test_a_damaged_frame_ends_what_can_be_read(home: Path, own: bool) -> None:
    """In the middle of what is not indexed: a start would refuse; here the rest before it is read, and the
    damage is said."""
    rig = GroupRig(home / GROUPS_DIRECTORY)
    rig.open()
    written(rig, "abcdef")
    rig.drop()
    path = rig.segment_files()[-1]
    data = bytearray(path.read_bytes())
    data[data.index(b"d" * BLOCK_BYTES) + 7] ^= 1
    path.write_bytes(data)
    before = everything(home)
    found, shadow = opened(site_of(home, "lon" if own else "par"), rig)
    assert shadow.letters("root", shadow.end) == "abc..."
    (note,) = found.notes
    assert ("damaged" if own else "no whole frame") in note
    found.close()
    assert everything(home) == before


def test_a_torn_tail_is_cut_for_the_reader_only(home: Path) -> None:
    rig = GroupRig(home / GROUPS_DIRECTORY)
    rig.open()
    written(rig, "abcdef")
    rig.drop()
    path = rig.segment_files()[-1]
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data[:-1])
    found, shadow = opened(site_of(home), rig)
    assert shadow.letters("root", shadow.end) == "abcde."
    assert "no whole frame" in found.notes[0]
    found.close()
    assert path.read_bytes() == data[:-1]


def test_a_segment_that_was_made_large_is_read_as_far_as_segments_go(home: Path) -> None:
    rig = GroupRig(home / GROUPS_DIRECTORY)
    rig.open()
    written(rig, "abcdef")
    rig.drop()
    path = rig.segment_files()[-1]
    os.truncate(path, 1 << 36)
    found, shadow = opened(site_of(home), rig)
    assert shadow.letters("root", shadow.end) == "abcdef"
    found.close()
    assert path.stat().st_size == 1 << 36


def test_names(home: Path) -> None:
    with pytest.raises(NotFound):
        offline_groups(home)
    rig = GroupRig(home / GROUPS_DIRECTORY)
    rig.open()
    rig.create("root")
    rig.drop()
    assert offline_groups(home) == ["g"]
    with pytest.raises(NotFound):
        open_offline(site_of(home), "h", SimClock(rig.world))
