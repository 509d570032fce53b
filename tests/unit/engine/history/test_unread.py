"""A frame that is whole and not understood: every reader goes past it, and it is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.group.clone_rows import CloneRow
from engine.group.settings import GroupSettings
from engine.history.unread import UNREAD, UnreadFrame, read_frame, unread_from_row
from engine.index.versions import RECORD_KEY
from engine.integrity.faults import Damage, Fault
from engine.integrity.repair import Repair
from engine.integrity.verify_rounds import VerifyRound
from engine.integrity.verify_slices import IndexSlice, JournalSlice, VerifyJournal
from engine.offline.groups import DeadSite, open_offline
from protocol.errors import RemoteProtocolError, Unsafe, WrongState
from protocol.events import WRITE, Consistency, Mark, Revert
from protocol.frames import Frame, FrameError
from protocol.limits import BLOCK_BYTES, UNREAD_TOUCHING_MAX
from protocol.positions import POSITION_MAX, Cut
from protocol.rows import pack_row, unpack_row
from tests.sim.world import SimClock
from tests.unit.engine.group_rig import GroupRig, filled, follow
from tests.unit.engine.unread_frames import (
    UNREAD_NAMES,
    Unread,
    frame_after,
    journal_unread,
    unread_frame,
    unread_kinds,
)
from tests.unit.protocol.test_frames import forged

MakeRig = Callable[..., GroupRig]
BLOCKS = 8


class Story(NamedTuple):
    """A group whose journal has one such frame in the middle; what its volume held just before and now."""

    rig: GroupRig
    volume: int
    unread: Unread
    frame: Frame
    before: Cut
    held: str
    now: str

    @property
    def damage(self) -> Damage:
        prefix = self.frame.prefix
        return Damage(Fault.UNREAD, (prefix.timeline, prefix.position, prefix.end, 0))


def story(rig: GroupRig, name: str) -> Story:
    volume = rig.create("root", BLOCKS)
    rig.write(volume, 0, b"a", b"b")
    before, held = rig.end, rig.letters("root")
    unread = unread_kinds(volume)[name]
    frame = journal_unread(rig.group, unread)
    rig.write(volume, 5, b"c")
    now = list("ab...c..")
    for block, letter in unread.taken:
        now[block] = letter
    rig.sync()
    rig.reopen()
    return Story(rig, volume, unread, frame, before, held, "".join(now))


def verified(rig: GroupRig, *, deep: bool) -> list[Damage]:
    """What a whole round finds."""
    group = rig.group
    at = VerifyRound(
        group=group,
        began_utc_ns=group.clock.utc_ns(),
        target=Cut(group.head.timeline, group.writer.durable),
        indexed=group.checkpoints.reached,
        deep=deep,
    )
    found: list[Damage] = []
    while (request := at.next()) is not None:
        answer: list[tuple[int, ...]] = []
        rig.indexer.start(request, lambda error, figures: answer.append(figures))  # noqa: B023
        if isinstance(request, VerifyJournal):
            journal = JournalSlice.from_figures(answer[0])
            at.took_journal(request, journal)
            found += journal.damage
        else:
            index = IndexSlice.from_figures(answer[0])
            at.took_index(index)
            found += index.damage
    return found


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_what_stands_before_and_after_is_read_from_journal_and_index_c1_c7(
    make_rig: MakeRig, name: str
) -> None:
    made = story(make_rig("one"), name)
    rig = made.rig
    for _ in range(3):
        assert rig.letters("root") == made.now
        assert rig.letters("root", made.before) == made.held
        assert [each.place for each in rig.group.damage.all()] == [made.damage.place]
        rig.sync()
        rig.checkpoint()
        assert rig.group.checkpoints.reached == rig.group.writer.durable
        rig.reopen()
    rig.write(made.volume, 6, b"d")
    assert rig.letters("root") == f"{made.now[:6]}d."


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_verification_goes_past_it_and_names_its_range(make_rig: MakeRig, name: str, deep: bool) -> None:
    made = story(make_rig("one"), name)
    assert verified(made.rig, deep=deep) == [made.damage]
    made.rig.checkpoint()
    made.rig.reopen()
    assert verified(made.rig, deep=deep) == [made.damage]
    assert made.rig.group.damage.found([made.damage]) == []
    size = made.frame.prefix.frame_bytes
    assert f"{Cut(*made.damage.place[:2])}, {size} bytes, is whole" in made.damage.message


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_a_recovery_names_it_until_a_checkpoint_has_it(make_rig: MakeRig, name: str) -> None:
    made = story(make_rig("one"), name)
    (found,) = made.rig.reopen().unread
    assert found.cut == Cut(*made.damage.place[:2])
    assert found.touches == made.unread.touches
    made.rig.sync()
    made.rig.checkpoint()
    assert made.rig.reopen().unread == []
    assert made.rig.group.unread.all() == [found]


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_only_what_it_may_have_changed_is_not_to_be_relied_on(make_rig: MakeRig, name: str) -> None:
    made = story(make_rig("one"), name)
    rig, damage = made.rig, made.rig.group.damage
    other = rig.create("late", 2)
    for checkpointed in (False, True):
        if checkpointed:
            rig.sync()
            rig.checkpoint()
            rig.reopen()
            damage = rig.group.damage
        damage.require_sound([made.volume, other], made.before, "root")
        damage.require_sound([other], rig.end, "late")
        assert damage.live() == (["root"] if made.unread.touches else [])
        if made.unread.touches:
            with pytest.raises(Unsafe, match="cannot be understood") as refused:
                damage.require_sound([made.volume], rig.end, "root")
            assert str(Cut(*made.damage.place[:2])) in refused.value.next_step
        else:
            damage.require_sound([made.volume], rig.end, "root")
    rig.group.append_records([Revert(volume=made.volume, cut=made.before)])
    assert damage.live() == []
    assert rig.letters("root") == made.held


def test_an_operator_accepts_it_once(make_rig: MakeRig) -> None:
    made = story(make_rig("one"), "no table at all")
    rig = made.rig
    rig.group.unread.accepted.accept(made.volume, rig.group.end)
    for _ in range(2):
        rig.group.damage.require_sound([made.volume], rig.end, "root")
        assert rig.group.damage.all() == [made.damage]
        rig.reopen()
    journal_unread(rig.group, made.unread)
    rig.sync()
    rig.reopen()
    assert rig.group.damage.live() == ["root"]


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_backups_and_clones_at_cuts_after_it(make_rig: MakeRig, name: str) -> None:
    made = story(make_rig("one"), name)
    rig = made.rig
    rig.group.begin_writing()
    mark = Mark(
        copy_id=5, label="", cut=None, volumes=(made.volume,), consistency=Consistency.CRASH, pinned=False
    )
    rig.group.append_records([mark])
    rig.sync()
    (copy,) = rig.group.copies.at(rig.group.spans())
    assert rig.letters("root", copy.cut) == made.now
    assert [each.id for each, _ in rig.group.damage.copies()] == ([5] if made.unread.touches else [])
    row = CloneRow(
        name="lab", group="g", cut=rig.end, timelines=(), volumes=(made.volume,), created_utc_ns=1,
        temporary=False, purpose="",
    )  # fmt: skip
    clone = rig.group.clones.create(row)
    clone.append([(WRITE, made.volume, 7, 1)], [filled(b"z")], BLOCK_BYTES)
    rig.sync()
    rig.checkpoint()
    rig.reopen()
    assert rig.letters("root") == made.now


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_it_is_truncated_like_any_frame_and_not_forgotten(make_rig: MakeRig, name: str) -> None:
    settings = GroupSettings(journal_limit_bytes=POSITION_MAX, reserve_bytes=0, window_s=0, window_bytes=1)
    made = story(make_rig("one", settings=settings), name)
    rig = made.rig
    for _ in range(3):  # each start begins a timeline, and so a segment
        rig.write(made.volume, 6, b"d")
        rig.sync()
        rig.checkpoint()
        rig.reopen()
        rig.settle(10)
    assert rig.group.kept.retention.truncated_to(made.frame.prefix.timeline) >= made.frame.prefix.end
    rig.reopen()
    assert rig.letters("root") == f"{made.now[:6]}d."
    assert rig.group.damage.live() == (["root"] if made.unread.touches else [])
    assert rig.group.damage.all() == ([made.damage] if made.unread.touches else [])


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_a_follower_carries_history_and_refuses_what_is_new(make_rig: MakeRig, name: str) -> None:
    made = story(make_rig("one"), name)
    one = made.rig
    other = make_rig("other", site="par", world=one.world, seed=2)
    with pytest.raises((FrameError, RemoteProtocolError)):
        follow(one, other)
    assert other.end == made.before
    assert not len(other.group.unread)
    files = other.files()
    with pytest.raises((FrameError, RemoteProtocolError)):
        follow(one, other)
    assert other.files() == files
    follow(one, other, history=True)
    for _ in range(3):
        assert (other.end, other.group.head.digest) == (one.end, one.group.head.digest)
        assert other.letters("root") == made.now
        assert other.letters("root", made.before) == made.held
        assert other.group.damage.all() == [made.damage]
        assert other.group.damage.live() == one.group.damage.live()
        other.sync()
        other.checkpoint()
        other.reopen()
    (said,) = [fields for kind, fields in other.events if kind == "journal.unread"]
    assert said["position"] == str(Cut(*made.damage.place[:2]))
    one.write(made.volume, 7, b"z")
    assert follow(one, other) > 0
    assert other.letters("root") == one.letters("root")


def test_data_of_a_volume_whose_making_is_not_understood_is_carried(make_rig: MakeRig) -> None:
    """Nobody can read it here, and what comes after it is not held up."""
    one = make_rig("one")
    volume = one.create("root", BLOCKS)
    later = (17, "later", BLOCKS * BLOCK_BYTES, "a field of a later version")
    made = journal_unread(one.group, Unread(rows=(later,), touches=False))
    data = frame_after(one.group, [(WRITE, made.prefix.position, 0, 1)], filled(b"x"))
    one.group.writer.append(data)
    one.group.head.digest = data.prefix.digest
    one.write(volume, 0, b"a")
    one.sync()
    one.reopen()
    other = make_rig("other", site="par", world=one.world, seed=2)
    follow(one, other, history=True)
    for rig in (one, other):
        rig.sync()
        rig.checkpoint()
        rig.reopen()
        assert rig.letters("root") == "a" + "." * (BLOCKS - 1)
        assert list(rig.group.volumes.at(rig.group.spans())) == ["root"]
    for row in ((WRITE, volume, BLOCKS, 1), (WRITE, other.end.position + 9, 0, 1)):
        outside = frame_after(other.group, [row], filled(b"x"))
        with pytest.raises(RemoteProtocolError):
            other.group.follow(outside.prefix, outside.raw, history=True)


def test_a_follower_carries_no_more_than_its_share(make_rig: MakeRig) -> None:
    rig = make_rig("one")
    rig.create("root", BLOCKS)
    for at in range(UNREAD_TOUCHING_MAX):
        rig.group.unread.apply(UnreadFrame(rig.end.timeline, at, at + 1, "", None))
    frame = frame_after(rig.group, [(99,)])
    with pytest.raises(FrameError, match="too many"):
        rig.group.follow(frame.prefix, frame.raw, history=True)
    touching_nothing = frame_after(rig.group, [(17, "huge", -4096)])
    rig.group.follow(touching_nothing.prefix, touching_nothing.raw, history=True)


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_a_dead_site_is_read_past_it(tmp_path: Path, name: str) -> None:
    rig = GroupRig(tmp_path / "groups")
    rig.open()
    made = story(rig, name)
    for _ in range(2):
        rig.drop()
        for with_index in (True, False):
            site = DeadSite(
                directory=tmp_path,
                state_file=tmp_path / "groups" / "state.mdb",
                site_id="lon",
                with_index=with_index,
                partial=True,
            )
            found = open_offline(site, "g", SimClock(rig.world))
            shadow = GroupRig(rig.directory)
            shadow.group = found.group
            assert shadow.letters("root") == made.now
            assert shadow.letters("root", made.before) == made.held
            (note,) = [each for each in found.notes if "cannot be understood" in each]
            assert f"{Cut(*made.damage.place[:2])}, {made.frame.prefix.frame_bytes} bytes" in note
            found.close()
        rig.open()
        rig.sync()
        rig.checkpoint()
    rig.drop()


def test_an_index_of_an_older_version_may_hold_what_is_no_record_any_more_c7(make_rig: MakeRig) -> None:
    """It indexed every record as it stood: `VolumeCreated` of size -4096 kept the group from opening."""
    made = story(make_rig("one"), "a volume of size -4096 (C7)")
    rig = made.rig
    rig.sync()
    rig.checkpoint()
    key = RECORD_KEY.pack(*made.damage.place[:2])
    with rig.group.store.write() as write:
        row = (made.frame.prefix.utc_ns, made.frame.prefix.position, made.unread.rows[0])
        write.put("records", key, pack_row(row))
    rig.reopen()
    assert rig.letters("root") == made.now
    assert rig.group.damage.all() == [made.damage]
    assert verified(rig, deep=True) == [made.damage]


def test_repair_says_that_there_is_nothing_to_mend(make_rig: MakeRig) -> None:
    made = story(make_rig("one"), "no table at all")

    async def ask(*_: object) -> tuple[int, ...]:
        raise AssertionError("nothing is asked for")

    with pytest.raises(WrongState, match="as it was written"):
        asyncio.run(Repair(made.rig.group, None, ask).mend(made.damage))
    assert made.rig.group.damage.all() == [made.damage]


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_half_of_it_is_never_taken(make_rig: MakeRig, name: str) -> None:
    """But for rows of no blocks, which say nothing, a frame counts whole or not at all."""
    rig = make_rig("one")
    volume = rig.create("root", BLOCKS)
    unread = unread_kinds(volume)[name]
    said = read_frame(unread_frame(rig.group, unread))
    assert not said.records
    assert len(said.rows) == len(unread.taken)
    assert said.unread is not None
    assert said.unread.to_row()[0] == UNREAD


_VALUES = st.one_of(st.integers(-(1 << 63), (1 << 64) - 1), st.text(max_size=3), st.none(), st.booleans())
_ROWS = st.lists(st.tuples(st.integers(-1, 30) | _VALUES, *[_VALUES] * 3), max_size=4)


@given(st.one_of(st.binary(min_size=1, max_size=200), _ROWS.map(pack_row)), st.integers(0, 2))
def test_whatever_a_table_holds_it_is_read_past(table: bytes, blocks: int) -> None:
    """Nothing but an answer comes of it, and the index can keep that answer."""
    for events in (1, 2, 4):
        frame = forged(table, bytes(blocks * BLOCK_BYTES), events=events)
        said = read_frame(Frame(frame.prefix, frame.raw))
        if said.unread is None:
            continue
        assert said.records == []
        assert sum(row[3] for row in said.rows if row[0] == WRITE) in (0, blocks)
        row = unpack_row(pack_row(said.unread.to_row()))
        assert unread_from_row(said.unread.timeline, said.unread.position, row) == said.unread


def test_reverts_of_a_frame_are_taken_together_or_not(make_rig: MakeRig) -> None:
    rig = make_rig("one")
    volume = rig.create("root", BLOCKS)
    rows = [Revert(volume=volume, cut=rig.end).to_row(), (21, volume + 9, 7)]
    said = read_frame(frame_after(rig.group, rows))
    assert (said.rows, said.records) == ((), [])
    assert said.unread is not None
    assert said.unread.volumes == (volume, volume + 9)
