"""The journal as it is shown: from a frame's boundary on, and from nowhere else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from daemon.operations.journal import journal_of
from protocol.commands.journal import JournalShow, JournalShowReply
from protocol.cut_text import CutPosition
from protocol.errors import ExitCode, NotFound
from protocol.positions import parse_cut
from tests.unit.engine.group_rig import GroupRig, memory_directory


@pytest.fixture
def rig() -> Iterator[GroupRig]:
    """A group with a few frames."""
    directory = memory_directory()
    made = GroupRig(directory / "one")
    made.open()
    volume = made.create("root", 4)
    for block in range(4):
        made.write(volume, block, b"a")
        made.sync()
    yield made
    made.drop()
    shutil.rmtree(directory, ignore_errors=True)


def shown(rig: GroupRig, timeline: int | None = None, position: int | None = None) -> JournalShowReply:
    """The reply; `since` a position of the head's timeline, unless another one is given."""
    since = None
    if position is not None:
        since = CutPosition(timeline=timeline or rig.end.timeline, position=position)
    return journal_of(rig.group, JournalShow(group="vm1", since=since), str)


def test_every_boundary_is_one_to_go_on_from(rig: GroupRig) -> None:
    frames = shown(rig).frames
    assert len(frames) > 3
    for number, frame in enumerate(frames):
        cut = parse_cut(frame.position)
        assert shown(rig, cut.timeline, cut.position).frames == frames[number:]
    assert shown(rig, None, rig.end.position).frames == []


@pytest.mark.parametrize(("timeline", "offset"), [(None, 1), (None, -1), (77, 0)])
def test_what_is_no_boundary_is_not_found(rig: GroupRig, timeline: int | None, offset: int) -> None:
    cut = parse_cut(shown(rig).frames[-1].position)
    with pytest.raises(NotFound) as caught:
        shown(rig, timeline, cut.position + offset)
    assert caught.value.exit_code is ExitCode.NOT_FOUND
    assert "journal show" in caught.value.next_step


def test_what_is_past_the_end_is_not_found(rig: GroupRig) -> None:
    with pytest.raises(NotFound):
        shown(rig, None, rig.end.position + 4096)
