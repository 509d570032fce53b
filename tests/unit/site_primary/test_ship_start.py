"""Where shipping begins: every line of the module's table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.errors import NotFound
from protocol.messages import Welcome
from protocol.positions import Cut
from site_primary.ship_start import where_to_start
from tests.unit.engine.group_rig import GroupRig

MakeRig = Callable[..., GroupRig]


def welcome(cut: Cut, digest: bytes) -> Welcome:
    return Welcome(
        session=1, timeline=cut.timeline, written=cut.position, durable=cut.position, digest=digest
    )


class Writer:
    """Two runs of one writer; `first` and `last` are their ends, with the digests there."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        volume = rig.create("root", 8)
        rig.write(volume, 0, b"a")
        self.middle = rig.end, rig.group.digest
        rig.write(volume, 1, b"b")
        self.first = rig.end, rig.group.digest
        rig.reopen()
        rig.write(volume, 2, b"c")
        self.last = rig.end, rig.group.digest

    def start(self, cut: Cut, digest: bytes = bytes(16)) -> Cut | None:
        return where_to_start(self.rig.group, welcome(cut, digest))


@pytest.fixture
def writer(rig: GroupRig) -> Writer:
    return Writer(rig)


def test_a_peer_with_nothing_starts_at_the_root(writer: Writer) -> None:
    assert writer.start(Cut(0, 0)) == Cut(writer.first[0].timeline, 0)


def test_a_group_without_a_timeline_has_nothing_to_ship_yet(rig: GroupRig) -> None:
    assert where_to_start(rig.group, welcome(Cut(0, 0), bytes(16))) == Cut(0, 0)


def test_a_peer_on_this_lineage_goes_on_where_it_is(writer: Writer) -> None:
    for cut, digest in (writer.middle, writer.first, writer.last):
        assert writer.start(cut, digest) == cut


def test_another_digest_at_the_same_place_is_another_history(writer: Writer) -> None:
    for cut, _ in (writer.middle, writer.first, writer.last):
        assert writer.start(cut, bytes(range(16))) is None


def test_a_place_that_is_no_boundary_here_is_said(writer: Writer) -> None:
    cut, digest = writer.middle
    with pytest.raises(NotFound):
        writer.start(Cut(cut.timeline, cut.position - 1), digest)


def test_a_tail_past_a_fork_of_this_writer_becomes_a_branch(writer: Writer) -> None:
    first = writer.first[0]
    assert writer.start(Cut(first.timeline, first.position + 500)) == first


def test_past_the_head_a_returning_writer_begins_its_own_timeline_first(writer: Writer) -> None:
    """What the peer has more was lost here: no position of it may be used again."""
    writer.rig.reopen()
    head = writer.rig.end
    assert writer.start(Cut(head.timeline, head.position + 500)) == head
    assert writer.rig.end.timeline != head.timeline
    assert writer.rig.group.timelines.get(writer.rig.end.timeline).fork == head.position


def test_a_tail_of_another_writer_is_diverged(writer: Writer, make_rig: MakeRig) -> None:
    first, last = writer.first[0], writer.last[0]
    writer.rig.group.site = "par"
    for cut in (first, last):
        assert writer.start(Cut(cut.timeline, cut.position + 500)) is None


def test_a_timeline_that_this_site_never_had_is_diverged(writer: Writer) -> None:
    assert writer.start(Cut(0x1234, 100)) is None
