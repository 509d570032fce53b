"""Whom a site that writes gives way to (C2), and what a person is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.group.site_state import Role
from engine.history.lineage import lineage_rows
from engine.peering.pair_states import PairState
from protocol.errors import WrongState
from protocol.limits import HEARTBEAT_TIMEOUT_S
from protocol.messages import Hello, Message, Refused, decode_message
from site_primary.shipping.comparison import Choice
from tests.sim.sim_site import GROUP, GROUP_ID, peer_of_name
from tests.unit.daemon.two_sites import TwoSites


def claim(sites: TwoSites, generation: int) -> list[Message]:
    """What `a` answers to whoever has b's key and says that b writes by an authority of its own."""
    answers: list[Message] = []
    link = sites.process(sites.b).transport.dial(
        peer_of_name("a").address, lambda header, payload: answers.append(decode_message(header))
    )
    group = sites.group(sites.a)
    forged = (77, group.head.timeline, group.end.position, generation, "b")
    hello = Hello(
        session=9,
        group=GROUP,
        group_id=GROUP_ID,
        site="b",
        lineage=(*lineage_rows(group), forged),
        written=group.end.position,
    )
    link.send(hello.encode())
    sites.until(lambda: bool(answers), 2.0)
    return answers


def fields_of(sites: TwoSites, event: str) -> list[dict[str, Any]]:
    """Of every event of that kind."""
    return [fields for _, kind, fields in sites.events if kind == event]


@pytest.mark.parametrize("generation", [2, 3, 99])
def test_c2_a_peer_that_follows_takes_nothing_over(sites: TwoSites, generation: int) -> None:
    guest = sites.attach(sites.a)
    (answer,) = claim(sites, generation)
    assert isinstance(answer, Refused)
    assert answer.code == "not-allowed"
    assert guest.connected
    assert sites.role(sites.a) is Role.PRIMARY
    assert sites.process(sites.a).state.heard(GROUP) < generation, (
        "a later takeover here must not trip over it"
    )
    (refused,) = fields_of(sites, "peer.claim_refused")
    assert (refused["group"], refused["object"], refused["generation"]) == (GROUP, "b", generation)
    sites.write(sites.a)
    sites.until_paired(sites.a)


def test_a_takeover_against_a_lost_answer_is_heeded_once_the_peer_is_silent(sites: TwoSites) -> None:
    guest = sites.attach(sites.a)
    begun = sites.world.now_ns
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
    assert not guest.connected
    assert (sites.world.now_ns - begun) / 1e9 < 3 * HEARTBEAT_TIMEOUT_S
    assert sites.said("peer.claim_refused")
    (cut,) = fields_of(sites, "hosts.cut_off")
    assert (cut["object"], cut["hosts"]) == ("b", 1)


def test_after_a_silence_a_takeover_is_heeded_at_once(sites: TwoSites) -> None:
    guest = sites.attach(sites.a)
    sites.part()
    sites.world.run_for(HEARTBEAT_TIMEOUT_S + 1)
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.heal()
    sites.until(lambda: not guest.connected)
    assert sites.said("peer.claim_refused") == []
    assert sites.said("hosts.cut_off") == ["a"]


def test_nobody_is_said_to_be_cut_off_where_nobody_was_connected(sites: TwoSites) -> None:
    sites.part()
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.heal()
    sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
    assert sites.said("group.fenced") == ["a"]
    assert sites.said("hosts.cut_off") == []


def test_hosts_between_two_connections_are_cut_off_with_a_word(sites: TwoSites) -> None:
    sites.leave(sites.a, sites.attach(sites.a))
    sites.part()
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.heal()
    sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
    (cut,) = fields_of(sites, "hosts.cut_off")
    assert (cut["object"], cut["hosts"]) == ("b", 0)


def test_nobody_is_said_to_be_cut_off_from_what_an_operator_had_closed(sites: TwoSites) -> None:
    guest, group = sites.attach(sites.a), sites.group(sites.a)
    sites.process(sites.a).state.set_closed(GROUP, [group.volume("v").id], "closed by an operator")
    sites.leave(sites.a, guest)
    sites.part()
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.heal()
    sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
    assert sites.said("hosts.cut_off") == []


def test_it_is_said_once_however_often_the_rest_fails(sites: TwoSites) -> None:
    guest = sites.attach(sites.a)
    sites.part()
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.commit_fails_next(sites.a)
    sites.heal()
    sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
    assert not guest.connected
    (cut,) = fields_of(sites, "hosts.cut_off")
    assert cut["hosts"] == 1


def test_a_detached_site_says_that_its_hosts_went(sites: TwoSites) -> None:
    sites.process(sites.a).pairs.split(GROUP)
    sites.until(lambda: sites.process(sites.b).receivers[GROUP].state is PairState.SPLIT)
    sites.process(sites.b).pairs.detach(sites.group(sites.b))
    guest = sites.attach(sites.b)
    sites.process(sites.a).pairs.resync(sites.group(sites.a), Choice.NONE)
    sites.until(lambda: not guest.connected)
    (cut,) = fields_of(sites, "hosts.cut_off")
    assert (cut["object"], cut["hosts"]) == ("a", 1)


def test_where_an_operator_said_so_no_silence_is_enough(sites: TwoSites) -> None:
    pairs = sites.process(sites.a).pairs
    pairs._yields_to_takeover = False
    guest = sites.attach(sites.a)
    sites.part()
    sites.world.run_for(HEARTBEAT_TIMEOUT_S + 1)
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.heal()
    sites.until(lambda: bool(sites.said("peer.claim_refused")))
    sites.world.run_for(20.0)
    assert guest.connected
    sites.write(sites.a)
    assert sites.shipper(sites.a).state is PairState.SUSPENDED
    pairs.resync(sites.group(sites.a), Choice.REMOTE)
    sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
    assert not guest.connected


def test_what_a_peer_closed_an_operator_opens_c43(sites: TwoSites) -> None:
    """Hosts here still have what they knew before the takeover."""
    sites.part()
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.heal()
    sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
    sites.until_paired(sites.b)
    sites.write(sites.b)
    sites.process(sites.b).pairs.hand_over(sites.group(sites.b))
    sites.until(lambda: sites.role(sites.a) is Role.PRIMARY)
    with pytest.raises(WrongState, match="offline: fenced"):
        sites.attach(sites.a)
    (said,) = fields_of(sites, "group.not_online")
    assert said["error"] == "fenced, offline until `farshore volume online G/V`: g/v"
    sites.online(sites.a)
    assert sites.attach(sites.a).connected
    sites.until_paired(sites.a)
    sites.process(sites.a).pairs.hand_over(sites.group(sites.a))
    sites.until(lambda: sites.role(sites.b) is Role.PRIMARY)
    assert not sites.refused(sites.b), "where the operator took over and handed over, nobody else closed it"


def test_a_takeover_here_is_the_operators_word_for_volumes_that_a_peer_closed(sites: TwoSites) -> None:
    for taking, other in ((sites.b, sites.a), (sites.a, sites.b)):
        sites.part()
        sites.world.run_for(HEARTBEAT_TIMEOUT_S + 1)
        sites.process(taking).pairs.take_over(sites.group(taking), PairState.TAKEN_OVER)
        assert not sites.refused(taking)
        sites.heal()
        sites.until(lambda other=other: sites.role(other) is Role.SECONDARY)  # type: ignore[misc]
        sites.until_paired(taking)
