"""Shipping: catching up, keeping up, and what breaks a session; production code at both ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.history.lineage import lineage_rows
from engine.peering.pair_states import PairState
from protocol.errors import WrongState
from protocol.limits import HEARTBEAT_TIMEOUT_S, REFUSED_DELAY_S
from protocol.messages import Ack, FrameMessage, Heartbeat, Hello, Welcome
from protocol.positions import Cut
from site_primary.shipping import send_window
from site_primary.shipping.comparison import Choice
from site_primary.shipping.session_phases import Phase
from tests.sim.sim_network import Damage
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair


def test_a_new_peer_gets_everything_from_the_root(shipping: ShippingPair) -> None:
    """Over several segments and a restart, read from the journal."""
    shipping.write(150)
    shipping.one.reopen()
    shipping.write(50)
    shipping.start_one()
    assert shipping.shipper.state is PairState.COPYING
    shipping.until_paired()
    shipping.assert_same()
    assert shipping.shipper.sent_bytes == shipping.one.end.position
    assert shipping.receiver.received_bytes == shipping.one.end.position


def test_what_is_written_while_paired_goes_out_at_once(shipping: ShippingPair) -> None:
    shipping.start_one()
    shipping.until_paired()
    for _ in range(20):
        shipping.write()
        shipping.until(lambda: shipping.other.end == shipping.one.end, 0.2)
    shipping.assert_same()
    assert shipping.shipper.lag_bytes >= 0
    shipping.until_paired()
    assert shipping.shipper.lag_bytes == 0


def test_nothing_is_in_sync_before_the_peer_said_so(shipping: ShippingPair) -> None:
    shipping.network.blackhole("par", "lon")
    shipping.start_one()
    shipping.world.run_for(HEARTBEAT_TIMEOUT_S * 0.9)
    assert shipping.shipper.state is PairState.COPYING
    assert shipping.shipper.marks.remote_written == 0


def test_a_broken_connection_costs_only_what_was_missing(shipping: ShippingPair) -> None:
    shipping.write(50)
    shipping.start_one()
    shipping.until_paired()
    shipping.network.cut("lon", "par")
    shipping.write(10)
    shipping.until_paired()
    shipping.assert_same()
    assert shipping.receiver.received_bytes == shipping.one.end.position
    states = [fields["state"] for kind, fields in shipping.one.events if kind == "pair.state"]
    assert states == ["copying", "paired", "suspended by error", "copying", "paired"]


def test_a_silent_peer_is_lost_and_found(shipping: ShippingPair) -> None:
    shipping.start_one()
    shipping.until_paired()
    shipping.network.part("lon", "par")
    shipping.until(lambda: shipping.shipper.state is PairState.SUSPENDED, HEARTBEAT_TIMEOUT_S + 2)
    assert "par" in shipping.shipper.reason
    assert not shipping.shipper.connected
    shipping.write(30)
    shipping.world.run_for(HEARTBEAT_TIMEOUT_S)
    assert shipping.receiver.state is PairState.SUSPENDED
    assert "lon" in shipping.receiver.reason
    shipping.network.heal("lon", "par")
    shipping.until_paired()
    shipping.assert_same()
    assert shipping.shipper.reason == ""


@pytest.mark.parametrize("seed", range(6))
def test_both_processes_killed_at_any_moment_converge_without_a_full_copy(directory: Path, seed: int) -> None:
    shipping = ShippingPair(directory, seed)
    shipping.start_one()
    sent = 0
    for turn in range(12):
        shipping.write(shipping.world.random.randrange(1, 30))
        shipping.world.run_for(shipping.world.random.random() * 0.3)
        sent += shipping.shipper.sent_bytes
        if turn % 3 == 0:
            shipping.restart_one()
        elif turn % 3 == 1:
            sent -= shipping.shipper.sent_bytes
            shipping.restart_other()
        else:
            sent -= shipping.shipper.sent_bytes
    shipping.write()
    shipping.until_paired()
    shipping.assert_same()
    sent += shipping.shipper.sent_bytes
    assert sent < 3 * shipping.one.end.position
    shipping.close()


@pytest.mark.parametrize("damage", Damage)
def test_a_message_damaged_on_the_way_ends_the_session_and_no_more(
    shipping: ShippingPair, damage: Damage
) -> None:
    """Flipped, lost, twice or out of order: the follower takes nothing that does not continue its journal."""
    shipping.start_one()
    shipping.until_paired()
    for _ in range(3):
        shipping.network.damage_next("lon", "par", damage)
        shipping.write(5)
        shipping.world.run_for(0.05)
        shipping.write(5)
        shipping.world.run_for(2.0)
    shipping.until_paired()
    shipping.assert_same()
    ended = [fields for kind, fields in shipping.other.events if kind == "pair.session_ended"]
    assert ended
    assert all(fields["reason"] for fields in ended)


def test_messages_of_a_session_that_is_over_change_nothing(shipping: ShippingPair) -> None:
    """What a dead connection still delivers: frames at the receiver, acknowledgements at the shipper."""
    shipping.start_one()
    shipping.until_paired()
    old_frames = [each for each in shipping.heard if isinstance(each[1], FrameMessage)]
    old_session = old_frames[0][1].session
    shipping.network.cut("lon", "par")
    shipping.write(5)
    shipping.until_paired()
    before = shipping.other.end, shipping.shipper.marks.remote_written
    for caller, message, payload in old_frames:
        shipping.receiver.on_message(caller, message, payload)
    ack = Ack(session=old_session, timeline=shipping.one.end.timeline, written=1, durable=1)
    for message in (ack, Welcome(session=old_session, lineage=(), written=0, durable=0, digest=bytes(16))):
        shipping.shipper.session.take(old_session, message.encode())
        shipping.shipper.session.take(shipping.shipper.session.id, message.encode())
    assert (shipping.other.end, shipping.shipper.marks.remote_written) == before
    assert shipping.shipper.state is PairState.PAIRED


def test_what_is_in_flight_is_bounded(shipping: ShippingPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that takes but never answers: the rest stays in the journal, and hosts never wait."""
    limit = 200_000
    monkeypatch.setattr(send_window, "SHIP_IN_FLIGHT_BYTES_MAX", limit)
    shipping.start_one()
    shipping.until_paired()
    shipping.network.blackhole("par", "lon")
    shipping.write(300)
    shipping.world.run_for(HEARTBEAT_TIMEOUT_S * 0.5)
    marks = shipping.shipper.marks
    assert marks.shipped - marks.remote_written < limit + 5_000
    assert shipping.other.end.position == marks.shipped
    assert shipping.one.end.position > marks.shipped + 900_000
    shipping.network.heal("lon", "par")
    shipping.until_paired()
    shipping.assert_same()


def test_frames_in_flight_are_bounded_by_number_too(
    shipping: ShippingPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_window, "SHIP_IN_FLIGHT_FRAMES_MAX", 7)
    shipping.start_one()
    shipping.until_paired()
    shipping.network.blackhole("par", "lon")
    before = shipping.shipper.marks.shipped
    shipping.write(50)
    shipping.world.run_for(1.0)
    reader = shipping.one.group.reader
    shipped = reader.prefixes(shipping.one.end.timeline, before, shipping.shipper.marks.shipped)
    assert len(list(shipped)) == 7


# Peers that are elsewhere.


def test_a_peer_ahead_of_a_returning_writer_keeps_its_tail_as_a_branch(shipping: ShippingPair) -> None:
    shipping.write(5)
    shipping.start_one()
    shipping.until_paired()
    kept = shipping.one.end
    shipping.write(7)
    shipping.until_paired()
    lost = shipping.one.end
    shipping.lose_tail(kept)
    assert shipping.one.end == kept
    shipping.start_one()
    shipping.shipper.hosts.serve()
    shipping.until_paired()
    shipping.assert_same()
    assert shipping.one.end.timeline != kept.timeline
    reader = shipping.other.group.reader
    assert reader.digest_at(shipping.other.group.timelines, lost.timeline, lost.position)
    followed = [fields for kind, fields in shipping.other.events if kind == "timeline.followed"]
    assert followed[-1]["tail_bytes"] == lost.position - kept.position


def test_what_a_returning_writer_lost_comes_back_from_its_peer(shipping: ShippingPair) -> None:
    shipping.write(5)
    shipping.start_one()
    shipping.until_paired()
    kept = shipping.one.end
    shipping.write(7)
    shipping.until_paired()
    lost, content = shipping.one.end, shipping.one.read("root")
    shipping.lose_tail(kept)
    shipping.start_one()
    shipping.until(lambda: shipping.shipper.session.phase is Phase.FETCHING)
    with pytest.raises(WrongState, match="takes in"):
        shipping.one.group.begin_writing()
    shipping.until_paired()
    assert shipping.one.end == lost
    assert shipping.one.read("root") == content
    shipping.write(3)
    shipping.until_paired()
    shipping.assert_same()


def test_a_tail_that_is_left_counts_for_nothing(shipping: ShippingPair) -> None:
    """The follower's tail reaches past the fork. Until it took in the new timeline, its acknowledgements
    name the old one: taken as positions alone they would call writes safe that it never saw."""
    shipping.start_one()
    shipping.until_paired()
    kept = shipping.one.end
    shipping.write(20)
    shipping.until_paired()
    tail_end = shipping.one.end.position
    shipping.lose_tail(kept)
    shipping.write(20)
    assert shipping.one.end.position > tail_end
    shipping.start_one()
    shipping.until(lambda: shipping.shipper.marks.shipped > tail_end)
    session = shipping.shipper.session.id
    stale = Ack(session=session, timeline=kept.timeline, written=tail_end, durable=tail_end)
    shipping.shipper.session.take(session, stale.encode())
    marks = shipping.shipper.marks
    assert max(marks.remote_written, marks.remote_durable) <= kept.position
    shipping.until_paired()
    shipping.assert_same()


def test_a_peer_that_wrote_by_itself_is_left_as_it_is(shipping: ShippingPair) -> None:
    shipping.start_one()
    shipping.until_paired()
    shipping.stop_one()
    shipping.other.write(shipping.volume, 0, b"mine")
    shipping.other.sync()
    shipping.world.run_for(1.0)
    before = shipping.other.files(), shipping.other.end
    shipping.one.open()
    shipping.write(5)
    shipping.start_one()
    shipping.until(lambda: shipping.shipper.state is PairState.DIVERGED)
    assert str(before[1]) in shipping.shipper.reason
    shipping.world.run_for(3 * REFUSED_DELAY_S)
    assert shipping.shipper.state is PairState.DIVERGED
    assert (shipping.other.files(), shipping.other.end) == before


def test_a_peer_with_another_history_of_the_same_timeline_is_diverged(shipping: ShippingPair) -> None:
    """An old data directory put back and written again: same timeline and position, another digest."""
    shipping.start_one()
    shipping.until_paired()
    session = shipping.shipper.session.id
    shipping.shipper.session.phase = Phase.GREETING
    end = shipping.one.end
    welcome = Welcome(
        session=session,
        lineage=lineage_rows(shipping.one.group),
        written=end.position,
        durable=end.position,
        digest=bytes(16),
    )
    shipping.shipper.session.take(session, welcome.encode())
    assert shipping.shipper.state is PairState.DIVERGED


def test_a_peer_that_was_emptied_gets_everything_again(shipping: ShippingPair) -> None:
    shipping.write(20)
    shipping.start_one()
    shipping.until_paired()
    shipping.forget_everything()
    shipping.write()
    shipping.until(lambda: shipping.other.end == shipping.one.end)
    shipping.until_paired()
    shipping.assert_same()


def test_a_journal_that_cannot_be_read_suspends_with_its_place(shipping: ShippingPair) -> None:
    shipping.write(3)
    bad = shipping.one.write(shipping.volume, 0, b"x").prefix
    shipping.write(3)
    path = shipping.one.segment_files()[0]
    damaged = bytearray(path.read_bytes())
    damaged[bad.end - 1] ^= 1
    path.write_bytes(damaged)
    shipping.start_one()
    shipping.until(lambda: shipping.shipper.state is PairState.SUSPENDED)
    assert str(Cut(bad.timeline, bad.position)) in shipping.shipper.reason
    assert shipping.other.end.position <= bad.position


def test_noise_from_the_peer_suspends(shipping: ShippingPair) -> None:
    shipping.start_one()
    shipping.until_paired()
    for header in (b"\xc1", Hello(session=1, group="", group_id="", site="", lineage=(), written=0).encode()):
        shipping.shipper.session.take(shipping.shipper.session.id, header)
        shipping.until_paired()
    beat = Heartbeat(session=shipping.shipper.session.id, timeline=1, written=1, utc_ns=1, state="", mode="")
    shipping.shipper.session.take(shipping.shipper.session.id, beat.encode())
    assert shipping.shipper.state is PairState.SUSPENDED
    shipping.until_paired()


# Split and resync.


def test_a_split_is_a_pause_and_a_resync_sends_what_was_missed(shipping: ShippingPair) -> None:
    shipping.write(20)
    shipping.start_one()
    shipping.until_paired()
    held, sent = shipping.other.end, shipping.shipper.sent_bytes
    shipping.shipper.split()
    shipping.write(10)
    shipping.world.run_for(60)
    assert shipping.shipper.state is PairState.SPLIT
    assert shipping.other.end == held
    shipping.shipper.start()
    shipping.until_paired()
    shipping.assert_same()
    assert shipping.shipper.sent_bytes - sent == shipping.one.end.position - held.position


def test_verbs_that_make_no_sense_change_nothing(shipping: ShippingPair) -> None:
    shipping.start_one()
    shipping.until_paired()
    with pytest.raises(WrongState):
        shipping.shipper.resync(Choice.NONE)
    shipping.shipper.split()
    with pytest.raises(WrongState):
        shipping.shipper.split()
    assert shipping.shipper.state is PairState.SPLIT


def test_closed_it_neither_hears_nor_says_anything(shipping: ShippingPair) -> None:
    shipping.start_one()
    shipping.until_paired()
    shipping.shipper.close()
    heard = len(shipping.heard)
    shipping.write(5)
    shipping.world.run_for(30)
    assert len(shipping.heard) == heard


def test_what_a_heartbeat_says_is_written_was_sent_before(shipping: ShippingPair) -> None:
    """Else a site that takes over believes that it lacks what its peer only held for a moment."""
    shipping.start_one()
    shipping.until_paired()

    def write_on() -> None:
        shipping.write()
        shipping.world.schedule(0.0007, write_on)

    write_on()
    behind = shipping.world.run_until(
        lambda: shipping.receiver.remote_written > shipping.other.group.writer.written, 12.0
    )
    assert not behind, (shipping.receiver.remote_written, shipping.other.end)
