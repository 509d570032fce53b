"""A base brings a site to a cut that the journal does not lead it to, and sends what differs, no more."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from engine.history.cuts import checked_cut
from engine.journal import room
from engine.ports.durable import RealFile
from protocol.compress import Compression
from protocol.errors import Trimmed
from protocol.events import WRITE, ZERO, Revert
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from tests.unit.engine.group_rig import follow
from tests.unit.site_primary.shipping.base_pair import BasePair


def test_an_empty_site_gets_what_is_there(pair: BasePair) -> None:
    volume = pair.one.create("root", 16)
    pair.one.write(volume, 2, b"a", b"b", b"c")
    pair.one.write(volume, 3, b"x")
    pair.one.append([(ZERO, volume, 4, 1)])
    cut = pair.copy(None)
    assert cut == pair.one.end == pair.other.end
    assert pair.other.letters("root") == "..ax............"
    assert pair.other.group.head.digest == pair.one.group.head.digest
    assert pair.sender is not None
    assert pair.sender.sent_blocks == 2


def test_it_travels_as_the_peer_is_to_be_reached(pair: BasePair) -> None:
    """Small, and no faster than its pace."""
    volume = pair.one.create("root", 1024)
    for at in range(0, 1024, 64):
        pair.one.write(volume, at, *(b"%d" % number for number in range(64)))
    pair.traffic.compression = Compression.ZSTD
    pair.traffic.queue.set_rate(2_000)
    began = pair.world.now_ns
    pair.copy(None)
    assert pair.other.read("root") == pair.one.read("root")
    assert pair.wire_bytes < 400_000
    assert pair.world.now_ns - began > 1_000_000_000


def test_the_journal_goes_on_from_there(pair: BasePair) -> None:
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a", b"b")
    pair.copy(None)
    between = pair.one.write(volume, 1, b"c").prefix.end
    timeline = pair.one.group.head.timeline
    pair.one.reopen()
    pair.one.write(volume, 2, b"d")
    follow(pair.one, pair.other)
    assert pair.other.end == pair.one.end
    assert pair.other.letters("root") == "acd....."
    assert pair.other.letters("root", Cut(timeline, between)) == "ac......"
    pair.other.checkpoint()
    pair.other.reopen()
    assert pair.other.end == pair.one.end
    assert pair.other.letters("root") == "acd....."
    pair.other.reopen()
    assert pair.other.letters("root") == "acd....."


def test_a_restart_right_after_it(pair: BasePair) -> None:
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a", b"b")
    cut = pair.copy(None)
    found = pair.other.reopen()
    assert found.frames == 0
    assert pair.other.end == cut
    assert pair.other.letters("root") == "ab......"
    assert pair.other.group.head.utc_ns == pair.one.group.head.utc_ns
    pair.one.write(volume, 0, b"z")
    follow(pair.one, pair.other)
    assert pair.other.letters("root") == "zb......"


def test_only_what_differs_comes_and_old_cuts_stay(pair: BasePair) -> None:
    volume = pair.one.create("root", 32)
    pair.one.write(volume, 0, *(bytes([65 + n]) for n in range(20)))
    follow(pair.one, pair.other)
    start = pair.other.end
    before = pair.other.letters("root")
    pair.one.write(volume, 5, b"x")
    middle = pair.one.end
    pair.one.append([(ZERO, volume, 7, 2), (WRITE, volume, 30, 1)], b"y")
    pair.other.sync()
    cut = pair.copy(start)
    assert pair.other.letters("root") == pair.one.letters("root") == "ABCDExG..JKLMNOPQRST..........y."
    assert pair.sender is not None
    assert pair.sender.sent_blocks == 2
    assert pair.other.letters("root", start) == before
    for reopened in (False, True):
        if reopened:
            pair.other.reopen()
        with pytest.raises(Trimmed):
            checked_cut(pair.other.group, middle)
        with pytest.raises(Trimmed):
            pair.other.letters("root", middle)
        assert checked_cut(pair.other.group, start) == start
        assert checked_cut(pair.other.group, cut) == cut
        assert pair.other.letters("root", start) == before
        assert pair.other.letters("root", cut) == pair.one.letters("root", cut)


def test_a_revert_into_the_gap_is_not_taken(pair: BasePair) -> None:
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    follow(pair.one, pair.other)
    start = pair.other.end
    pair.one.write(volume, 0, b"b")
    gone = pair.one.end
    pair.one.write(volume, 0, b"c")
    pair.copy(start)
    cut = pair.other.end
    pair.one.group.append_records([Revert(volume=volume, cut=gone)])
    with pytest.raises(Trimmed):
        follow(pair.one, pair.other)
    assert pair.other.end == cut
    assert pair.other.letters("root")[0] == "c"
    pair.copy(cut)
    assert pair.other.letters("root")[0] == "b"


def test_volumes_come_and_go(pair: BasePair) -> None:
    """Numbers of a volume are positions: one made in the gap is not mixed up with anything."""
    first = pair.one.create("root", 8)
    pair.one.write(first, 0, b"a")
    follow(pair.one, pair.other)
    start = pair.other.end
    second = pair.one.create("data", 4)
    created = pair.one.end
    pair.one.write(second, 1, b"d")
    pair.copy(start)
    assert pair.other.letters("data") == ".d.."
    assert pair.other.letters("root") == "a......."
    with pytest.raises(Trimmed):
        pair.other.letters("root", created)


def test_bases_on_bases(pair: BasePair) -> None:
    volume = pair.one.create("root", 16)
    pair.one.write(volume, 0, b"a", b"b", b"c")
    cuts = []
    start: Cut | None = None
    for letter in (b"1", b"2", b"3", b"4"):
        pair.one.write(volume, 4, letter)
        pair.one.append([(ZERO, volume, 1, 1)])
        pair.one.write(volume, 1, letter)
        start = pair.copy(start)
        cuts.append((start, pair.one.letters("root")))
        pair.one.write(volume, 6, letter)
        follow(pair.one, pair.other)
        start = pair.other.end
        cuts.append((start, pair.one.letters("root")))
    pair.other.reopen()
    for cut, letters in cuts:
        assert pair.other.letters("root", cut) == letters


def test_it_goes_on_after_every_message_lost(pair: BasePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line breaks after 1, 2, 3 … messages: in the end all is there, and little was sent twice."""
    monkeypatch.setattr("site_primary.shipping.base_sender.BASE_PAYLOAD_BYTES", 3 * BLOCK_BYTES)
    volume = pair.one.create("root", 64)
    pair.one.write(volume, 0, *(bytes([65 + n]) for n in range(50)))
    sender = pair.start_sender(None)
    for messages in range(1, 100):
        pair.connect()
        pair.cut_after = pair.carried + messages
        pair.one.settle(10.0)
        assert not pair.failures
        if sender.done:
            break
        pair.disconnect()
    assert sender.done
    assert messages > 5
    assert pair.other.letters("root") == pair.one.letters("root")


@pytest.mark.parametrize("messages", range(1, 24))
def test_a_restart_of_the_receiver_anywhere(
    pair: BasePair, monkeypatch: pytest.MonkeyPatch, messages: int
) -> None:
    """Until it is installed the receiver is where it was; then it is at the cut, and nothing in between."""
    monkeypatch.setattr("site_primary.shipping.base_sender.BASE_PAYLOAD_BYTES", 3 * BLOCK_BYTES)
    monkeypatch.setattr("engine.history.base_intake.BASE_INDEX_BYTES", 8 * BLOCK_BYTES)
    volume = pair.one.create("root", 64)
    pair.one.write(volume, 0, *(bytes([65 + n]) for n in range(20)))
    follow(pair.one, pair.other)
    start, before = pair.other.end, pair.other.letters("root")
    pair.one.write(volume, 10, *(bytes([97 + n]) for n in range(25)))
    pair.one.append([(ZERO, volume, 0, 3)])
    sender = pair.start_sender(start)
    pair.connect()
    pair.cut_after = messages
    pair.one.settle(10.0)
    pair.restart_other()
    if pair.other.end == start:
        assert pair.other.letters("root") == before
    else:
        assert pair.other.end == sender.cut
        assert pair.other.letters("root") == pair.one.letters("root")
        return
    pair.connect()
    pair.world.run_for(5.0)
    assert not pair.failures
    assert sender.done
    assert pair.other.letters("root") == pair.one.letters("root")
    assert pair.other.letters("root", start) == before
    pair.other.reopen()
    assert pair.other.letters("root") == pair.one.letters("root")


def test_another_base_replaces_a_half_received_one(pair: BasePair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("site_primary.shipping.base_sender.BASE_PAYLOAD_BYTES", 3 * BLOCK_BYTES)
    monkeypatch.setattr("engine.history.base_intake.BASE_INDEX_BYTES", 8 * BLOCK_BYTES)
    volume = pair.one.create("root", 64)
    pair.one.write(volume, 0, *(bytes([65 + n]) for n in range(50)))
    first = pair.start_sender(None)
    pair.connect()
    pair.cut_after = 12
    pair.one.settle(10.0)
    first.close()
    pair.restart_other()
    pair.one.append([(ZERO, volume, 0, 30)])
    pair.copy(None)
    assert pair.sender is not None
    assert pair.sender.timeline != first.timeline
    assert pair.other.letters("root") == pair.one.letters("root")
    journal = pair.other.directory / "g" / "journal"
    assert not list((journal / f"{first.timeline:016x}").glob("*.seg"))
    pair.other.reopen()
    assert pair.other.letters("root") == pair.one.letters("root")


def test_a_crash_between_the_install_and_the_head(pair: BasePair) -> None:
    """The transaction is the moment: the next start does the rest."""
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    pair.other.indexer.hold = True
    sender = pair.start_sender(None)
    pair.connect()
    for _ in range(2):
        pair.one.settle(10.0)
        pair.other.indexer.answer()
    pair.one.settle(10.0)
    assert pair.other.group.head.timeline == 0
    pair.restart_other()
    assert pair.other.end == sender.cut
    assert pair.other.letters("root") == "a......."


def test_a_crash_between_them_after_a_write_that_failed(
    pair: BasePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame whose write had failed was taken for one that had come since, and the head stayed where no
    volume could be read."""
    one, other = pair.one, pair.other
    volume = one.create("root", 8)
    follow(one, other)
    start = other.end
    one.write(volume, 0, b"a")
    one.sync()

    def written_and_fails(*where: Any, before: Callable[..., None] = RealFile.pwrite) -> None:
        before(*where)
        raise OSError(errno.EIO, "as the test asked")

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "as the test asked")

    with monkeypatch.context() as context:
        context.setattr(RealFile, "pwrite", written_and_fails)
        with pytest.raises(OSError, match="as the test asked"):
            follow(one, other)
    one.reopen()
    one.write(volume, 1, b"b")
    with monkeypatch.context() as context:
        context.setattr(other.group.state, "set_head", fails)
        sender = pair.start_sender(start)
        pair.connect()
        one.settle(60.0)
    assert not sender.done
    assert other.end == start
    pair.restart_other()
    assert other.end == sender.cut
    assert other.letters("root") == "ab......"


def test_a_tail_of_its_own_stays_as_a_branch(pair: BasePair) -> None:
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    follow(pair.one, pair.other)
    start = pair.other.end
    pair.other.write(volume, 1, b"t")
    tail = pair.other.end
    pair.one.write(volume, 2, b"b")
    pair.start_sender(start)
    pair.connect()
    pair.world.run_for(5.0)
    [failure] = pair.failures
    assert "would leave what another site wrote" in failure
    assert pair.other.end == tail
    pair.failures.clear()
    pair.leave = True
    pair.copy(start)
    assert pair.other.letters("root") == "a.b....."
    for _ in range(2):
        assert pair.other.letters("root", tail) == "at......"
        assert pair.other.letters("root", start) == "a......."
        pair.other.reopen()


def test_what_the_site_wrote_meanwhile_is_not_lost(pair: BasePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A takeover of the receiving site ends the base, not the other way round."""
    volume = pair.one.create("root", 8)
    pair.one.write(volume, 0, b"a")
    follow(pair.one, pair.other)
    start = pair.other.end
    pair.one.write(volume, 1, b"b")
    pair.start_sender(start)
    pair.connect()
    pair.cut_after = 3
    pair.one.settle(10.0)
    pair.other.write(volume, 2, b"w")
    pair.connect()
    pair.one.settle(10.0)
    assert pair.failures
    assert pair.other.letters("root") == "a.w....."


def test_segments_of_a_base_are_not_history(pair: BasePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's limit bounds history; a copy of a volume that is larger must still be possible."""
    monkeypatch.setattr(room, "SEGMENT_BYTES", 1 << 18)
    volume = pair.one.create("root", 256)
    for block in range(0, 256, 8):
        pair.one.write(volume, block, *([b"q"] * 8))
    pair.copy(None)
    assert pair.other.group.segments.total_bytes() == 0
    assert pair.other.letters("root") == "q" * 256
