"""Opening a group after its process or its machine died: what was promised is there, or the damage is
named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.journal.format import SPARE_PATH, segment_path, timeline_directory
from protocol.errors import Corruption, FarshoreError
from protocol.events import ZERO, TimelineBegan
from protocol.frames import FramePrefix, encode_frame, parse_prefix
from protocol.positions import Cut
from tests.unit.engine.group_rig import GroupRig

MakeRig = Callable[..., GroupRig]


class Stored:
    """A group on disk, not open; `fresh` gives it back as it was, and `files` is what it was."""

    def __init__(self, rig: GroupRig) -> None:
        rig.drop()
        self.original = rig.directory.with_name("original")
        rig.directory.rename(self.original)
        self.rig = rig
        self.files = GroupRig(self.original).files()

    def fresh(self) -> GroupRig:
        """A new rig on a copy, not open."""
        shutil.rmtree(self.rig.directory, ignore_errors=True)
        shutil.copytree(self.original, self.rig.directory)
        return GroupRig(self.rig.directory, seed=self.rig.rng.getrandbits(32), world=self.rig.world)

    def with_file(self, name: str, content: bytes) -> GroupRig:
        """The same with one journal file's content replaced."""
        rig = self.fresh()
        (rig.directory / "g/journal" / name).write_bytes(content)
        return rig

    def flipped(self, at: int, mask: int = 0xFF, name: str = "") -> GroupRig:
        """The same with one byte flipped, of the last segment unless named."""
        name = name or max(name for name in self.files if name.endswith(".seg"))
        content = bytearray(self.files[name])
        content[at] ^= mask
        return self.with_file(name, bytes(content))


@pytest.fixture
def rig(directory: Path) -> GroupRig:
    """As in conftest, but tests here drop it and open copies of it."""
    made = GroupRig(directory / "one")
    made.open()
    return made


def refuses(rig: GroupRig) -> Corruption:
    """Opening must fail with Corruption, and not one byte of the journal may change."""
    before = rig.files()
    with pytest.raises(Corruption) as caught:
        rig.open()
    assert rig.files() == before
    return caught.value


def goes_on(rig: GroupRig, expected: str) -> None:
    """The group reads as expected, takes another write, and holds both after one more restart."""
    assert rig.letters("root") == expected
    volume = rig.group.volume("root").id
    rig.write(volume, 3, b"N")
    assert rig.letters("root") == expected[:3] + "N"
    again = rig.reopen()
    assert again.torn_bytes == 0
    assert rig.letters("root") == expected[:3] + "N"
    rig.drop()


# The last frame.


def with_a_short_last_frame(rig: GroupRig) -> tuple[Stored, FramePrefix]:
    """Two blocks written, then one zeroed: the last frame has no payload, so that every byte of it is
    tried."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a", b"b")
    last = rig.append([(ZERO, volume, 1, 1)]).prefix
    return Stored(rig), last


def test_a_journal_cut_at_every_byte_of_its_last_frame_opens_at_the_frame_before(rig: GroupRig) -> None:
    stored, last = with_a_short_last_frame(rig)
    name = max(name for name in stored.files if name.endswith(".seg"))
    content = stored.files[name]
    for length in range(last.position, last.end):
        for tail in (b"", bytes(len(content) - length)):
            if content[:length] + tail == content:
                continue  # the frame ends in zeroes: it was whole already
            cut = stored.with_file(name, content[:length] + tail)
            found = cut.open()
            assert cut.end == Cut(last.timeline, last.position)
            assert found.torn_bytes == len(content[last.position : length].rstrip(b"\0"))
            assert (cut.directory / "g/journal" / name).read_bytes() == content[: last.position]
            goes_on(cut, "ab..")


def test_every_byte_of_the_last_frame_flipped_opens_at_the_frame_before(rig: GroupRig) -> None:
    stored, last = with_a_short_last_frame(rig)
    for at in range(last.position, last.end):
        damaged = stored.flipped(at)
        found = damaged.open()
        assert damaged.end == Cut(last.timeline, last.position)
        assert found.torn_at == str(damaged.end)
        assert found.reason
        goes_on(damaged, "ab..")


def test_a_last_frame_with_data_is_cut_the_same_way(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a", b"b")
    last = rig.write(volume, 1, b"c", b"d").prefix
    stored = Stored(rig)
    name = max(name for name in stored.files if name.endswith(".seg"))
    for length in [
        *range(last.position, last.payload_at, 7),
        *range(last.payload_at, last.end, 397),
        last.end - 1,
    ]:
        cut = stored.with_file(name, stored.files[name][:length])
        cut.open()
        assert cut.end == Cut(last.timeline, last.position)
        goes_on(cut, "ab..")


def test_what_is_read_after_recovery_stays(rig: GroupRig) -> None:
    """The cut is durable before the first read: a second crash shows the same (L2)."""
    stored, last = with_a_short_last_frame(rig)
    torn = stored.flipped(last.position + 80)
    assert torn.open().torn_bytes > 0
    assert torn.letters("root") == "ab.."
    assert torn.reopen().torn_bytes == 0
    assert torn.letters("root") == "ab.."
    torn.drop()


# Damage where something was promised.


def with_promises(rig: GroupRig) -> tuple[Stored, FramePrefix]:
    """A frame, and a later one whose writer says that the first is durable."""
    volume = rig.create("root", 4)
    middle = rig.append([(ZERO, volume, 0, 1)]).prefix
    rig.sync()
    rig.write(volume, 1, b"b")
    return Stored(rig), middle


def test_every_byte_flipped_below_a_later_promise_is_reported_and_nothing_cut(rig: GroupRig) -> None:
    stored, middle = with_promises(rig)
    for at in range(middle.position, middle.end):
        error = refuses(stored.flipped(at))
        assert error.position == str(Cut(middle.timeline, middle.position))


def test_the_first_frame_of_the_head_was_promised(rig: GroupRig) -> None:
    """It was durable before anything else could be; without it nothing says what the timeline is."""
    rig.group.begin_writing()
    stored = Stored(rig)
    name = max(name for name in stored.files if name.endswith(".seg"))
    first = parse_prefix(stored.files[name])
    for at in range(first.frame_bytes):
        assert refuses(stored.flipped(at)).position.startswith(f"{first.timeline:016x}:")
    for length in range(first.frame_bytes):
        refuses(stored.with_file(name, stored.files[name][:length]))


def test_every_byte_flipped_below_a_fork_is_reported_and_nothing_cut(rig: GroupRig) -> None:
    """Also in a parent's first frame: a timeline that others come from is no orphan."""
    volume = rig.create("root", 4)
    rig.append([(ZERO, volume, 0, 1)])
    parent = rig.end
    rig.reopen()
    rig.write(volume, 0, b"a")
    stored = Stored(rig)
    name = f"{parent.timeline:016x}/{0:016x}.seg"
    for at in range(parent.position):
        error = refuses(stored.flipped(at, name=name))
        assert error.position.startswith(f"{parent.timeline:016x}:")
    for length in range(0, parent.position, 11):
        refuses(stored.with_file(name, stored.files[name][:length]))


def test_a_parent_that_wrote_nothing_is_not_removed_with_its_damage(rig: GroupRig) -> None:
    """Its only frame says where it came from: the chain to the root runs through it."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    rig.reopen()
    rig.group.begin_writing()
    parent = rig.end.timeline
    rig.reopen()
    rig.write(volume, 1, b"b")
    stored = Stored(rig)
    name = next(name for name in stored.files if name.startswith(f"{parent:016x}/") and name.endswith(".seg"))
    for at in range(len(stored.files[name].rstrip(b"\0"))):
        refuses(stored.flipped(at, name=name))


def test_a_missing_parent_is_reported(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    parent = rig.end.timeline
    rig.reopen()
    rig.write(volume, 0, b"a")
    stored = Stored(rig)
    missing = stored.fresh()
    shutil.rmtree(missing.directory / "g" / timeline_directory(parent))
    refuses(missing)


def test_a_missing_head_is_reported(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.reopen()
    rig.write(volume, 0, b"a")
    head = rig.end.timeline
    missing = Stored(rig).fresh()
    shutil.rmtree(missing.directory / "g" / timeline_directory(head))
    assert f"{head:016x}" in refuses(missing).message


def checkpointed(rig: GroupRig) -> tuple[Stored, Cut]:
    """Two frames in the index, a last one behind."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    rig.write(volume, 1, b"b")
    rig.checkpoint()
    cut = rig.end
    rig.append([(ZERO, volume, 0, 1)])
    return Stored(rig), cut


def test_recovery_begins_at_the_checkpoint(rig: GroupRig) -> None:
    stored, _ = checkpointed(rig)
    opened = stored.fresh()
    assert opened.open().frames == 1
    assert opened.group.checkpoints.reached > 0
    goes_on(opened, ".b..")


def test_a_journal_that_ends_below_its_checkpoint_is_reported(rig: GroupRig) -> None:
    stored, cut = checkpointed(rig)
    name = max(name for name in stored.files if name.endswith(".seg"))
    for length in range(0, cut.position, 97):
        error = refuses(stored.with_file(name, stored.files[name][:length]))
        assert error.position == str(cut)
        refuses(stored.with_file(name, stored.files[name][:length] + bytes(20_000)))


def test_a_journal_put_back_beside_a_newer_index_is_reported(rig: GroupRig, directory: Path) -> None:
    """Two runs from the same start, with the same timeline and lengths but other bytes: the digest tells."""
    volume = rig.create("root", 4)
    rig.drop()
    runs = []
    for name, content in (("newer", b"a"), ("older", b"b")):
        shutil.copytree(rig.directory, directory / name)
        run = GroupRig(directory / name, seed=7)
        run.open()
        run.write(volume, 0, content)
        run.checkpoint()
        run.drop()
        runs.append(run)
    newer, older = runs
    shutil.rmtree(newer.directory / "g/journal")
    shutil.copytree(older.directory / "g/journal", newer.directory / "g/journal")
    assert "digest" in refuses(newer).message


def test_damage_of_the_index_is_reported(rig: GroupRig) -> None:
    """A row that cannot be read stops the group; the daemon and its other groups go on."""
    stored, _ = checkpointed(rig)
    for table in ("records", "timelines", "meta"):
        damaged = stored.fresh()
        damaged.open()
        with damaged.group.store.write() as write:
            cursor = write.cursor(table)
            cursor.next()
            write.put(table, bytes(cursor.key()), b"\x93\x01")
        damaged.drop()
        with pytest.raises(FarshoreError):
            damaged.open()


# Timelines that never became the head.


def test_directories_of_orphans_are_removed(rig: GroupRig) -> None:
    """A crash between a timeline's first file and the moment at which it becomes the head leaves one of
    these."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    head, fork = rig.end.timeline, rig.end.position
    rig.drop()
    began = TimelineBegan(parent=head, fork=fork, generation=2, writer="lon", group="g", sealed=True)
    whole = encode_frame(
        timeline=5,
        position=fork,
        utc_ns=1,
        durable=fork,
        previous_digest=rig.group.head.digest,
        rows=[began.to_row()],
        payload=[],
        payload_bytes=0,
    ).raw
    left = {2: None, 3: bytes(9000), 4: bytes(whole[:50]) + bytes(9000), 5: bytes(whole) + bytes(9000)}
    for timeline, content in left.items():
        (rig.directory / "g" / timeline_directory(timeline)).mkdir()
        if content is not None:
            (rig.directory / "g" / segment_path(timeline, fork)).write_bytes(content)
    found = rig.open()
    assert found.removed == [f"{timeline:016x}" for timeline in left]
    assert {name.partition("/")[0] for name in rig.files()} == {f"{head:016x}"}
    assert rig.group.segments.timelines() == [head]
    goes_on(rig, "a...")


def test_orphans_stay_while_the_group_cannot_be_opened(rig: GroupRig) -> None:
    """Nothing is changed where damage is found: whoever repairs it may need them."""
    stored, middle = with_promises(rig)
    damaged = stored.flipped(middle.position)
    (damaged.directory / "g" / timeline_directory(7)).mkdir()
    refuses(damaged)


def test_a_timeline_with_more_than_its_first_frame_is_never_removed(rig: GroupRig) -> None:
    """Whatever made the state forget it, these are someone's writes."""
    volume = rig.create("root", 4)
    rig.write(volume, 0, b"a")
    old_head = rig.end.timeline
    rig.reopen()
    rig.write(volume, 1, b"b")
    lost = rig.end.timeline
    rig.group.state.set_head("g", old_head)
    rig.reopen()
    assert rig.letters("root") == "a..."
    assert lost in rig.group.timelines
    goes_on(rig, "a...")
    assert any(name.startswith(f"{lost:016x}/") for name in rig.files())


def test_a_spare_segment_is_removed(rig: GroupRig) -> None:
    rig.create("root", 4)
    rig.drop()
    (rig.directory / "g" / SPARE_PATH).write_bytes(bytes(100))
    rig.open()
    assert SPARE_PATH.rpartition("/")[2] not in rig.files()
    rig.drop()


def test_a_group_that_was_never_written_opens_empty(rig: GroupRig) -> None:
    rig.reopen()
    assert rig.group.head.timeline == 0
    assert rig.group.spans() == []
    rig.drop()
