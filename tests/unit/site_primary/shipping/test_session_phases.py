"""The table of a session's phases, and what a pair that is split does not do."""

from __future__ import annotations

import pytest

from engine.peering.pair_states import PairState
from protocol.base_messages import BaseAck
from protocol.limits import HEARTBEAT_TIMEOUT_S
from protocol.messages import Ack, Fetched, Hello, Welcome
from site_primary.shipping.comparison import Choice
from site_primary.shipping.session_phases import (
    ANSWERS,
    CONNECTED,
    HEARD,
    TRANSITIONS,
    Phase,
    Step,
    next_phase,
)
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair


def test_every_phase_is_reached_from_idle_and_led_back_there() -> None:
    reached = {Phase.IDLE}
    while more := {to for (phase, _), to in TRANSITIONS.items() if phase in reached} - reached:
        reached |= more
    assert reached == set(Phase)
    for phase in Phase:
        assert next_phase(phase, Step.HANG_UP) is Phase.IDLE


def test_data_moves_only_after_a_comparison() -> None:
    """Each of the phases that move data is entered from GREETING, and hears answers of its own."""
    for (phase, step), to in TRANSITIONS.items():
        if to in CONNECTED:
            assert phase is Phase.GREETING, step
    assert set(HEARD) == {Phase.GREETING, *CONNECTED}
    assert all(HEARD.values())
    assert len(set(ANSWERS)) == len(ANSWERS)


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.WAITING, Phase.FETCHING, Phase.SHIPPING, Phase.PARTING])
def test_a_step_that_is_not_in_the_table_is_a_defect(phase: Phase) -> None:
    with pytest.raises(ValueError, match=f"{phase.value} cannot ship"):
        next_phase(phase, Step.SHIP)


def test_an_answer_that_is_late_or_comes_twice_changes_nothing(shipping: ShippingPair) -> None:
    shipping.write(5)
    shipping.start_one()
    shipping.until_paired()
    session, end = shipping.shipper.session, shipping.one.end
    before = shipping.shipper.marks.remote_written, session.phase
    welcome = Welcome(session=session.id, lineage=(), written=0, durable=0, digest=bytes(16))
    for message in (welcome, Fetched(session=session.id, done=True)):
        session.take(session.id, message.encode(), b"")
        assert (shipping.shipper.marks.remote_written, session.phase) == before
    session.phase = Phase.GREETING
    ack = Ack(session=session.id, timeline=end.timeline, written=end.position, durable=end.position)
    session.take(session.id, ack.encode())
    assert session.phase is Phase.GREETING


def test_a_late_word_of_a_base_does_not_take_an_operators_choice_back(shipping: ShippingPair) -> None:
    """The peer may acknowledge in a new session what it got of a base in the one before."""
    shipping.start_one()
    shipping.until_paired()
    shipping.shipper.split()
    shipping.shipper.resync(Choice.REMOTE)
    session = shipping.shipper.session
    late = BaseAck(session=session.id, base=7, written=0, indexed=0, installed=False)
    session.take(session.id, late.encode())
    assert shipping.shipper.hosts.choice is Choice.REMOTE


@pytest.mark.parametrize("word", ["noise", "failure"])
def test_a_split_pair_dials_nobody_whatever_fails(shipping: ShippingPair, word: str) -> None:
    """Noise while the last word is on its way, or a base that ran out of room long after: the peer must not
    hear a HELLO, which would end the split there."""
    shipping.start_one()
    shipping.until_paired()
    session = shipping.shipper.session
    shipping.shipper.split()
    if word == "noise":
        session.take(session.id, b"\xc1")
    shipping.world.run_for(1.0)
    assert session.phase is Phase.IDLE
    if word == "failure":
        shipping.shipper._fail("the journal ran full")
    hellos = sum(isinstance(message, Hello) for _, message, _ in shipping.heard)
    shipping.world.run_for(3 * HEARTBEAT_TIMEOUT_S)
    assert session.phase is Phase.IDLE
    assert shipping.shipper.state is PairState.SPLIT
    assert sum(isinstance(message, Hello) for _, message, _ in shipping.heard) == hellos
    shipping.shipper.resync(Choice.NONE)
    shipping.until_paired()
