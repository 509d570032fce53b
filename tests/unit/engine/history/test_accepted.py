"""An operator's word for frames that are not understood holds for the line that the operator looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.group.stored_rows import ENGINE_TABLES
from engine.history.accepted import ROW, TABLE
from protocol.errors import RemoteProtocolError, Unsafe
from protocol.limits import ACCEPTED_CUTS_MAX
from protocol.positions import Cut
from protocol.rows import pack_row
from tests.unit.engine.group_rig import GroupRig, follow, take_other_line
from tests.unit.engine.unread_frames import journal_unread, unread_kinds

MakeRig = Callable[..., GroupRig]
TOUCHING = "no table at all"
BLOCKS = 8


class Lines:
    """`rig` has a frame that is not understood, accepted at its end `mine`; `other` left that line
    earlier and has another such frame, at a lower position than `mine`."""

    def __init__(self, make_rig: MakeRig, long: int = 0) -> None:
        self.rig = make_rig("one")
        self.volume = self.rig.create("root", BLOCKS)
        self.rig.write(self.volume, 0, b"a")
        self.other = make_rig("other", site="par", world=self.rig.world, seed=2)
        follow(self.rig, self.other)
        unread = unread_kinds(self.volume)[TOUCHING]
        journal_unread(self.rig.group, unread)
        for block in range(4):
            self.rig.write(self.volume, block, b"b")
        self.rig.sync()
        self.rig.reopen()
        self.mine = self.rig.end
        self.other.write(self.volume, 1, b"c")
        journal_unread(self.other.group, unread)
        for _ in range(1 + long):
            self.other.write(self.volume, 2, b"d")
        self.other.sync()
        self.other.reopen()
        assert (self.other.end.position > self.mine.position) == bool(long)

    def resync(self) -> None:
        """The other site's line becomes the head here."""
        take_other_line(self.rig, self.other, history=True)

    def accept(self) -> None:
        self.rig.group.unread.accepted.accept(self.volume, self.rig.end)

    @property
    def refused(self) -> bool:
        """Whether what the head shows is not to be relied on, now and after a restart."""
        found = []
        for _ in range(2):
            found.append(bool(self.rig.group.damage.live()))
            self.rig.sync()
            self.rig.reopen()
        assert found[0] == found[1]
        return found[0]

    def require_sound(self, cut: Cut) -> None:
        self.rig.group.damage.require_sound([self.volume], cut, "root")

    def put_old_row(self) -> None:
        key = b"g\0" + self.volume.to_bytes(8)
        self.rig.group.state.put_notes(TABLE, {key: pack_row((self.mine.position,))})
        self.rig.reopen()


def test_a_frame_of_another_line_is_not_accepted_by_its_position(make_rig: MakeRig) -> None:
    lines = Lines(make_rig)
    assert lines.refused
    lines.accept()
    assert not lines.refused
    lines.resync()
    assert lines.refused
    lines.require_sound(lines.mine)


def test_a_word_for_one_line_does_not_take_back_that_for_another(make_rig: MakeRig) -> None:
    lines = Lines(make_rig)
    lines.accept()
    lines.resync()
    lines.accept()
    assert not lines.refused
    lines.require_sound(lines.mine)
    lines.require_sound(lines.rig.end)


@pytest.mark.parametrize("long", [0, 4])
def test_a_row_of_an_older_version_counts_for_the_line_that_it_can_only_be_about(
    make_rig: MakeRig, long: int
) -> None:
    lines = Lines(make_rig, long)
    lines.put_old_row()
    assert not lines.refused
    lines.resync()
    assert lines.refused
    if long:  # both lines reach as far as the row says: none of the two can have been meant for sure
        with pytest.raises(Unsafe):
            lines.require_sound(lines.mine)
    else:
        lines.require_sound(lines.mine)
    lines.accept()
    assert not lines.refused
    if not long:
        lines.require_sound(lines.mine)


def test_an_old_row_goes_on_to_count_over_restarts_of_the_writer(make_rig: MakeRig) -> None:
    lines = Lines(make_rig)
    lines.put_old_row()
    for _ in range(3):
        lines.rig.write(lines.volume, 5, b"e")
        assert not lines.refused
    lines.rig.write(lines.volume, 5, b"e")
    journal_unread(lines.rig.group, unread_kinds(lines.volume)[TOUCHING])
    lines.rig.sync()
    lines.rig.reopen()
    assert lines.refused


def test_words_are_bounded(make_rig: MakeRig) -> None:
    lines = Lines(make_rig)
    for at in range(3 * ACCEPTED_CUTS_MAX):
        lines.rig.write(lines.volume, at % BLOCKS, b"e")
        lines.accept()
    [(_, value)] = lines.rig.group.state.notes(TABLE).items()
    assert ROW.decode(value) == ((lines.rig.end,),)


def test_rows_of_both_kinds_are_looked_at_when_a_site_starts() -> None:
    check = ENGINE_TABLES[TABLE].check
    key = (7).to_bytes(8)
    for row in ((5,), (((77, 5),),), (((77, 5), (78, 9)),), ((),)):
        check(key, pack_row(row))
    too_many = tuple((77, each) for each in range(ACCEPTED_CUTS_MAX + 1))
    for bad in ((-1,), ("x",), ((5,),), (((77, -1),),), (((77,),),), (too_many,), (5, 6), ()):
        with pytest.raises(RemoteProtocolError):
            check(key, pack_row(bad))
