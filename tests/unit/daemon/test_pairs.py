"""How roles move and who is served meanwhile, when something fails at the worst moment.

Each of these ended with a broken promise once, in some seed of the simulator.
"""

from __future__ import annotations

import pytest

from engine.group.holds import Holder
from engine.group.site_state import PairRow, Role
from engine.peering.pair_states import Mode, PairState
from protocol.errors import WrongState
from site_primary.shipping.comparison import Choice
from site_primary.shipping.session_phases import Phase
from site_primary.sync_gate import GatePhase
from tests.sim.sim_site import GROUP
from tests.unit.daemon.two_sites import TwoSites

# -- who hosts talk to


def test_hosts_wait_from_the_choice_of_the_others_history_until_it_is_here(sites: TwoSites) -> None:
    sites.diverge()
    sites.part()
    guest = sites.attach(sites.a)
    sites.process(sites.a).pairs.resync(sites.group(sites.a), Choice.REMOTE)
    assert not guest.connected
    sites.online(sites.a)  # whoever opens the volume meanwhile opens it for later
    assert sites.refused(sites.a)
    with pytest.raises(WrongState, match="is to go on with what b holds"):
        sites.write(sites.a)
    sites.heal()
    sites.until_paired(sites.a)
    assert sites.attach(sites.a).connected
    assert sites.group(sites.a).end == sites.group(sites.b).end
    assert sites.process(sites.a).generation > 1, (
        "it goes on from another site's history by its own authority"
    )


@pytest.mark.parametrize("word", ["split", "local"])
def test_another_word_of_the_operator_lets_hosts_in_again(sites: TwoSites, word: str) -> None:
    sites.diverge()
    sites.part()
    pairs = sites.process(sites.a).pairs
    pairs.resync(sites.group(sites.a), Choice.REMOTE)
    pairs.split(GROUP)
    if word == "local":
        pairs.resync(sites.group(sites.a), Choice.LOCAL)
    sites.online(sites.a)
    assert sites.attach(sites.a).connected


def test_a_split_that_is_not_remembered_takes_no_choice_back(sites: TwoSites) -> None:
    """The operator hears that it failed: hosts go on waiting for the other history."""
    sites.diverge()
    sites.part()
    pairs, group = sites.process(sites.a).pairs, sites.group(sites.a)
    pairs.resync(group, Choice.REMOTE)
    sites.commit_fails_next(sites.a)
    with pytest.raises(OSError, match="commit failed"):
        pairs.split(GROUP)
    assert pairs.shipper(GROUP).state is not PairState.SPLIT
    assert Holder.CHOICE in group.holds
    assert sites.refused(sites.a)


def test_a_resync_that_is_not_remembered_sends_nobody_away(sites: TwoSites) -> None:
    sites.diverge()
    sites.part()
    guest = sites.attach(sites.a)
    pairs, group = sites.process(sites.a).pairs, sites.group(sites.a)
    before = pairs.shipper(GROUP).state
    sites.commit_fails_next(sites.a)
    with pytest.raises(OSError, match="commit failed"):
        pairs.resync(group, Choice.REMOTE)
    assert guest.connected
    assert pairs.shipper(GROUP).state is before
    assert not group.holds


@pytest.mark.parametrize("failing", range(4))
def test_who_hears_of_a_newer_authority_serves_nobody_whatever_fails(sites: TwoSites, failing: int) -> None:
    """The first, second, … commit of what is to be written down."""
    sites.part()
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    guest = sites.attach(sites.a)
    state = sites.a.state_file
    commits = state.commits

    def fail_at_its_turn() -> bool:
        if state.commits == commits + failing and sites.said("group.fenced") == []:
            sites.commit_fails_next(sites.a)
            return True
        return False

    sites.heal()
    sites.until(lambda: fail_at_its_turn() or not guest.connected)
    sites.until(lambda: not guest.connected)
    assert sites.refused(sites.a)
    sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
    sites.until(lambda: not sites.group(sites.a).holds)
    assert list(sites.process(sites.a).shippers) == []


def test_a_newer_authority_is_heard_while_the_pair_is_split(sites: TwoSites) -> None:
    """The peer's refusal is on the way when an operator splits the pair."""
    sites.part()
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.process(sites.b).pairs.split(GROUP)  # so that it does not come by itself
    sites.world.run_for(8.0)
    guest = sites.attach(sites.a)
    sites.network.set_delay("b", "a", 0.3, 0.3)
    sites.heal()
    heard = sites.heard["b"]
    sites.until(lambda: sites.heard["b"] > heard)  # its refusal is on the way
    sites.process(sites.a).pairs.split(GROUP)
    assert guest.connected
    sites.until(lambda: not guest.connected, 1.0)
    assert sites.role(sites.a) is Role.SECONDARY


def test_a_split_ends_with_the_first_word_of_the_next_session(sites: TwoSites) -> None:
    """An operator who opened the secondary after that would have hosts write beside what comes in."""
    sites.process(sites.a).pairs.split(GROUP)
    receiver = sites.process(sites.b).receivers[GROUP]
    sites.until(lambda: receiver.state is PairState.SPLIT)
    heard = sites.heard["b"]
    sites.process(sites.a).pairs.resync(sites.group(sites.a), Choice.NONE)
    sites.until(lambda: sites.heard["b"] > heard)
    assert sites.shipper(sites.a).connected is False, "its answer is still on the way"
    assert receiver.state is PairState.COPYING
    pair = sites.process(sites.b).state.pair(GROUP)
    assert pair is not None
    assert pair.state is PairState.COPYING


def test_one_holder_does_not_open_what_another_keeps_shut(sites: TwoSites) -> None:
    group = sites.group(sites.a)
    group.holds.put(Holder.INSTALL, "installs a copy")
    sites.shipper(sites.a).hosts.choose(Choice.REMOTE)
    sites.shipper(sites.a).hosts.choose(Choice.NONE)
    assert sites.refused(sites.a)
    group.holds.lift(Holder.INSTALL)
    assert not sites.refused(sites.a)


def test_a_detached_site_that_wrote_nothing_follows_although_nothing_is_shipped(sites: TwoSites) -> None:
    sites.process(sites.a).pairs.split(GROUP)
    sites.until(lambda: sites.process(sites.b).receivers[GROUP].state is PairState.SPLIT)
    sites.process(sites.b).pairs.detach(sites.group(sites.b))
    guest = sites.attach(sites.b)
    sites.process(sites.a).pairs.resync(sites.group(sites.a), Choice.NONE)
    sites.until(lambda: not guest.connected)
    assert sites.role(sites.b) is Role.SECONDARY
    sites.until_paired(sites.a)


def test_an_export_that_was_shut_shows_what_came_since(sites: TwoSites) -> None:
    """Opened to hosts, closed, and opened again after the volume went on without them."""

    def split_and_open() -> None:
        sites.process(sites.a).pairs.split(GROUP)
        sites.until(lambda: sites.process(sites.b).receivers[GROUP].state is PairState.SPLIT)
        sites.process(sites.b).pairs.detach(sites.group(sites.b))
        sites.online(sites.b)

    split_and_open()
    sites.attach(sites.b)
    sites.restart(sites.a)  # what it writes next is a timeline that `b` did not know then
    sites.process(sites.a).pairs.resync(sites.group(sites.a), Choice.NONE)
    sites.write(sites.a, 3)
    sites.until_paired(sites.a)
    split_and_open()
    sites.attach(sites.b)
    group, exports = sites.group(sites.b), sites.process(sites.b).exports
    volume = group.volume("v")
    shown = exports.live[GROUP, volume.id].view
    assert shown.intervals == group.live_view(volume).intervals
    with shown.batch() as batch:
        assert shown.read_block(batch, 3)[:1] == b"x"


def test_what_a_detached_site_writes_while_it_is_compared_is_not_called_paired(sites: TwoSites) -> None:
    sites.process(sites.a).pairs.split(GROUP)
    sites.until(lambda: sites.process(sites.b).receivers[GROUP].state is PairState.SPLIT)
    sites.process(sites.b).pairs.detach(sites.group(sites.b))
    sites.network.set_delay("b", "a", 0.2, 0.2)  # its WELCOME is on the way for a while
    sites.process(sites.a).pairs.resync(sites.group(sites.a), Choice.NONE)
    receiver = sites.process(sites.b).receivers[GROUP]
    session = receiver._session
    sites.until(lambda: receiver._session != session)
    sites.write(sites.b)
    sites.events.clear()
    sites.until(lambda: sites.shipper(sites.a).state is PairState.DIVERGED)
    states = [fields["state"] for _, event, fields in sites.events if event == "pair.state"]
    assert PairState.PAIRED.value not in states, "a hand-over would have given the group to who had left it"


def test_a_lost_tail_is_not_waited_for_longer_than_it_comes(sites: TwoSites) -> None:
    """The peer that gives it goes away in the middle, and the time to wait is over."""
    sites.write(sites.a)
    sites.until_paired(sites.a)
    shipper = sites.shipper(sites.a)
    sites.group(sites.a).holds.put(Holder.START, "asks b")
    shipper.hosts.serving = False
    shipper.session.phase = Phase.FETCHING
    shipper.hosts.no_longer(taking_in=True)
    assert sites.refused(sites.a), "its frames are coming in"
    sites.part()
    sites.until(lambda: not sites.refused(sites.a), 20.0)


# -- what is acknowledged


def test_strict_is_in_force_as_its_row_says_although_the_journal_cannot_be_told(sites: TwoSites) -> None:
    sites.restart(sites.a)  # so that the first record needs a segment of its own
    sites.until_paired(sites.a)
    sites.a.disk.fail_next_write()
    gate = sites.shipper(sites.a).gate
    gate.set_mode(Mode.SYNC_STRICT)

    def row_and_gate_agree() -> bool:
        pair = sites.process(sites.a).state.pair(GROUP)
        assert pair is not None
        in_force = pair.mode is Mode.SYNC_STRICT and not pair.fallen_back
        assert in_force is (gate.phase is GatePhase.IN_FORCE)
        return in_force

    sites.until(row_and_gate_agree)
    assert "a" in sites.said("pair.strict_not_said")
    sites.until(lambda: sites.group(sites.a).strict)
    sites.until_paired(sites.a)
    assert sites.group(sites.b).strict


def test_a_takeover_calls_no_mode_in_force_whatever_fails_after_it() -> None:
    sites = TwoSites(Mode.SYNC)
    sites.until(lambda: sites.shipper(sites.a).gate.phase is GatePhase.IN_FORCE)
    sites.a.end(power=True)
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.restart(sites.b)
    pair = sites.process(sites.b).state.pair(GROUP)
    assert pair is not None
    assert pair.fallen_back
    assert sites.shipper(sites.b).gate.phase is GatePhase.OPEN


# -- takeovers that do not come to their end at once


def test_a_hand_over_that_could_not_be_taken_is_taken_later(sites: TwoSites) -> None:
    sites.commit_fails_next(sites.b)
    sites.process(sites.a).pairs.hand_over(sites.group(sites.a))
    sites.until(lambda: "b" in sites.said("group.take_over_failed"))
    sites.until(lambda: sites.role(sites.b) is Role.PRIMARY)
    sites.until_paired(sites.b)


def test_a_takeover_whose_role_could_not_be_set_back_is_completed(
    sites: TwoSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites.part()
    group = sites.group(sites.b)
    sites.b.disk.fail_next_write()
    state = sites.process(sites.b).state
    set_role, calls = state.set_role, []

    def second_fails(name: str, role: Role, pair: PairRow | None = None) -> None:
        calls.append(role)
        if len(calls) == 2:
            sites.commit_fails_next(sites.b)
        set_role(name, role, pair)

    monkeypatch.setattr(state, "set_role", second_fails)
    with pytest.raises(OSError, match="failed"):
        sites.process(sites.b).pairs.take_over(group, PairState.TAKEN_OVER)
    assert sites.refused(sites.b)
    assert Holder.TAKEOVER in group.holds
    sites.until(lambda: GROUP in sites.process(sites.b).shippers)
    assert group.timelines.get(group.head.timeline).writer == "b"
    assert sites.process(sites.b).generation > 1
    assert not sites.refused(sites.b)


def test_a_group_taken_back_after_a_hand_over_is_shipped_once(sites: TwoSites) -> None:
    sites.network.blackhole("a", "b")
    sites.process(sites.a).pairs.hand_over(sites.group(sites.a))
    first = sites.shipper(sites.a)
    sites.process(sites.a).pairs.take_over(sites.group(sites.a), PairState.TAKEN_OVER)
    assert sites.shipper(sites.a) is not first
    assert first.session.id == 0, "the first one is closed"
    sites.heal()
    sites.until_paired(sites.a)


def test_a_site_that_gave_the_group_away_says_nothing_after_that(sites: TwoSites) -> None:
    """It starts again before the other one took it, and has to end a strict promise that no row holds to."""
    gate = sites.shipper(sites.a).gate
    gate.set_mode(Mode.SYNC_STRICT)
    sites.until(lambda: sites.group(sites.a).strict)
    sites.until_paired(sites.a)
    gate.suspend("split")
    sites.network.blackhole("a", "b")
    sites.process(sites.a).pairs.hand_over(sites.group(sites.a))
    end = sites.group(sites.a).end
    sites.restart(sites.a)
    sites.world.run_for(3.0)
    assert sites.group(sites.a).end == end
    assert not sites.said("group.take_over_failed")
    sites.heal()
    sites.until(lambda: sites.role(sites.b) is Role.PRIMARY)
    sites.until_paired(sites.b)


# -- old copies


def test_a_writer_put_back_to_an_old_copy_is_diverged_and_nothing_is_left(sites: TwoSites) -> None:
    """The old one writes before it can ask its peer."""
    sites.a.end(power=False)
    old = sites.a.copy()
    sites.a.start()
    sites.until_paired(sites.a)
    for block in range(10):
        sites.write(sites.a, block)
        sites.until_paired(sites.a)
    newest = sites.group(sites.b).end
    for site in (sites.a, sites.b):
        site.end(power=False)
    sites.a.put_back(old)
    sites.a.start()
    sites.until(lambda: not sites.refused(sites.a))
    sites.write(sites.a, 30)
    sites.b.start()
    sites.until(lambda: sites.shipper(sites.a).state is PairState.DIVERGED)
    sites.world.run_for(30.0)
    assert sites.shipper(sites.a).state is PairState.DIVERGED
    assert sites.group(sites.b).end == newest
    sites.process(sites.a).pairs.resync(sites.group(sites.a), Choice.REMOTE)
    sites.until_paired(sites.a)
    assert sites.group(sites.a).holds_cut(newest)


def test_a_writer_put_back_to_an_old_copy_takes_back_what_its_peer_has(sites: TwoSites) -> None:
    sites.a.end(power=False)
    old = sites.a.copy()
    sites.a.start()
    sites.until_paired(sites.a)
    newest = sites.write(sites.a, 5)
    sites.until_paired(sites.a)
    sites.a.end(power=False)
    sites.a.put_back(old)
    sites.a.start()
    sites.until_paired(sites.a)
    assert sites.group(sites.a).holds_cut(newest)
