"""Where shipping begins: every line of the module's table."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.group.group import Group
from protocol.errors import NotFound
from protocol.messages import LineageRow, Welcome
from protocol.positions import Cut
from site_primary.shipping.comparison import Choice, Start, Verdict, where_to_start
from tests.unit.engine.group_rig import GroupRig


def welcome(group: Group, cut: Cut, digest: bytes, *more: LineageRow) -> Welcome:
    """From a peer whose journal ends at `cut`, on this group's lineage or, past it, in the runs of `more`."""
    known = group.timelines.lineage(cut.timeline) if cut.timeline in group.timelines else group.spans()
    timelines = (group.timelines.get(span.timeline) for span in known)
    rows = tuple((t.id, t.parent, t.fork, t.generation, t.writer) for t in timelines)
    return Welcome(
        session=1,
        lineage=rows + more if cut.timeline else (),
        written=cut.position,
        durable=cut.position,
        digest=digest,
    )


class Writer:
    """Two runs of one writer; `first` and `last` are their ends, with the digests there."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        volume = rig.create("root", 8)
        rig.write(volume, 0, b"a")
        self.middle = rig.end, rig.group.head.digest
        rig.write(volume, 1, b"b")
        self.first = rig.end, rig.group.head.digest
        rig.reopen()
        rig.write(volume, 2, b"c")
        self.last = rig.end, rig.group.head.digest

    def start(self, cut: Cut, digest: bytes = bytes(16), *, serving: bool = True) -> Start:
        group = self.rig.group
        return where_to_start(group, welcome(group, cut, digest), choice=Choice.NONE, serving=serving)


@pytest.fixture
def writer(rig: GroupRig) -> Writer:
    return Writer(rig)


def test_a_peer_with_nothing_starts_at_the_root(writer: Writer) -> None:
    assert writer.start(Cut(0, 0)) == Start(verdict=Verdict.SHIP, cut=Cut(0, 0))


def test_a_peer_on_this_lineage_goes_on_where_it_is(writer: Writer) -> None:
    for cut, digest in (writer.middle, writer.first, writer.last):
        assert writer.start(cut, digest) == Start(verdict=Verdict.SHIP, cut=cut)


def test_another_digest_at_the_same_place_is_another_history(writer: Writer) -> None:
    for cut, _ in (writer.middle, writer.first, writer.last):
        assert writer.start(cut, bytes(range(16))).verdict is Verdict.DIVERGED


def test_a_place_that_is_no_boundary_here_is_said(writer: Writer) -> None:
    cut, digest = writer.middle
    with pytest.raises(NotFound):
        writer.start(Cut(cut.timeline, cut.position - 1), digest)


def test_a_tail_past_a_fork_of_this_writer_becomes_a_branch(writer: Writer) -> None:
    first = writer.first[0]
    start = writer.start(Cut(first.timeline, first.position + 500))
    assert (start.verdict, start.cut, start.tail_bytes) == (Verdict.SHIP, first, 500)


def test_what_a_writer_lost_is_fetched_before_anyone_is_served(writer: Writer) -> None:
    writer.rig.reopen()
    head = writer.rig.end
    start = writer.start(Cut(head.timeline, head.position + 500), serving=False)
    assert (start.verdict, start.cut) == (Verdict.FETCH, head)
    assert writer.rig.end == head


def test_past_the_head_a_returning_writer_begins_its_own_timeline_first(writer: Writer) -> None:
    """Hosts have read what is here: what the peer has more is a branch, and no position of it is used
    again."""
    writer.rig.reopen()
    head = writer.rig.end
    start = writer.start(Cut(head.timeline, head.position + 500))
    assert (start.verdict, start.cut) == (Verdict.SHIP, head)
    assert writer.rig.end.timeline != head.timeline
    assert writer.rig.group.timelines.get(writer.rig.end.timeline).fork == head.position


def test_more_of_the_timeline_that_is_written_now_is_a_machine_turned_back(writer: Writer) -> None:
    """A snapshot of a running machine: its memory went back too, and the daemon goes on from there."""
    group, head = writer.rig.group, writer.rig.end
    message = welcome(group, Cut(head.timeline, head.position + 500), bytes(16))
    for _ in range(2):
        start = where_to_start(group, message, choice=Choice.NONE, serving=True)
        assert (start.verdict, start.cut, start.tail_bytes) == (Verdict.DIVERGED, head, 500)
    assert [kind for kind, _ in writer.rig.events].count("timeline.turned_back") == 1
    start = where_to_start(group, message, choice=Choice.LOCAL, serving=True)
    assert (start.verdict, start.cut) == (Verdict.SHIP, head)
    assert writer.rig.end.timeline != head.timeline, "no position is used twice"


OTHERS = 0x1234


def others_run(parent: Cut) -> LineageRow:
    return (OTHERS, parent.timeline, parent.position, 2, "par")


@pytest.mark.parametrize("where", ["middle", "first", "last"])
def test_what_another_site_wrote_is_diverged_until_an_operator_chooses(writer: Writer, where: str) -> None:
    fork, digest = getattr(writer, where)
    group = writer.rig.group
    message = welcome(group, fork, digest, others_run(fork))
    message = replace(message, written=fork.position + 700)
    for choice, verdict in (
        (Choice.NONE, Verdict.DIVERGED),
        (Choice.REMOTE, Verdict.FETCH),
        (Choice.LOCAL, Verdict.SHIP),
    ):
        start = where_to_start(group, message, choice=choice, serving=True)
        assert (start.verdict, start.cut, start.tail_bytes) == (verdict, fork, 700)


def test_a_chosen_history_that_ends_at_the_fork_goes_on_there(writer: Writer) -> None:
    """Else nothing would be sent, and the peer stay on what it wrote."""
    group = writer.rig.group
    fork, digest = writer.last
    group.head.began = True
    message = replace(welcome(group, fork, digest, others_run(fork)), written=fork.position + 700)
    start = where_to_start(group, message, choice=Choice.LOCAL, serving=True)
    assert (start.verdict, start.cut) == (Verdict.SHIP, fork)
    assert group.end.timeline != fork.timeline
    assert group.timelines.get(group.head.timeline).fork == fork.position


def test_a_history_without_a_common_timeline_is_diverged(writer: Writer) -> None:
    message = welcome(writer.rig.group, Cut(0, 0), bytes(16))
    message = replace(message, lineage=(others_run(Cut(0, 0)),), written=100)
    for choice in (Choice.NONE, Choice.LOCAL):
        start = where_to_start(writer.rig.group, message, choice=choice, serving=True)
        assert start.verdict is Verdict.DIVERGED
