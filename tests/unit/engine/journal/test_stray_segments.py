"""Files among a group's segments that are no part of its journal: what keeps the group closed is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.engine.group.test_recovery import Stored, checkpointed, goes_on, refuses
from tests.unit.engine.group_rig import GroupRig


@pytest.fixture
def rig(directory: Path) -> GroupRig:
    """As in conftest, but tests here drop it and open copies of it."""
    made = GroupRig(directory / "one")
    made.open()
    return made


@pytest.mark.parametrize("how", ["rubbish", "copy", "empty"])
@pytest.mark.parametrize("at", [1, 97, -1])
def test_a_file_that_begins_within_a_segment_is_named(rig: GroupRig, how: str, at: int) -> None:
    stored, cut = checkpointed(rig)
    (name,) = (name for name in stored.files if name.endswith(".seg"))
    start = at if at > 0 else cut.position + at
    stray = f"{cut.timeline:016x}/{start:016x}.seg"
    content = {"rubbish": b"\xa5" * 400, "copy": stored.files[name], "empty": b""}[how]
    error = refuses(stored.with_file(stray, content))
    assert error.subject == f"journal/{stray}"
    assert f"journal/{stray} begins within journal/{name}" in error.message
    assert f"mv journal/{stray} journal/{stray}.stray" in error.next_step
    # What it says to do is enough.
    path = stored.rig.directory / "g/journal" / stray
    path.rename(path.with_name(f"{path.name}.stray"))
    opened = GroupRig(stored.rig.directory, world=stored.rig.world)
    opened.open()
    goes_on(opened, ".b..")


def test_a_file_that_hides_what_was_promised_is_named(rig: GroupRig) -> None:
    """Past the checkpoint: the walk ends at it, and a frame further on says what was durable there."""
    volume = rig.create("root", 4)
    hidden = rig.write(volume, 0, b"a").prefix
    for block in (1, 2):
        rig.write(volume, block, b"b")
        rig.sync()
    stored = Stored(rig)
    stray = f"{hidden.timeline:016x}/{hidden.position + 9:016x}.seg"
    error = refuses(stored.with_file(stray, b"x" * 400))
    assert error.subject == f"journal/{stray}"
    assert "says it is durable" in error.message


def test_segments_that_overlap_by_what_was_preallocated_are_no_strays(rig: GroupRig) -> None:
    """A crash may take the truncation of a segment that is full: its zeroes lie below the next one's
    frames."""
    stored, cut = checkpointed(rig)
    (name,) = (name for name in stored.files if name.endswith(".seg"))
    content = stored.files[name]
    whole = stored.with_file(name, content[: cut.position] + bytes(20_000))
    (whole.directory / "g/journal" / f"{cut.timeline:016x}/{cut.position:016x}.seg").write_bytes(
        content[cut.position :]
    )
    whole.open()
    goes_on(whole, ".b..")
