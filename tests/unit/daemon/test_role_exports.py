"""What hosts find after a role move: by whose word it was closed, and who may open it again (C2, C43)."""

from __future__ import annotations

import pytest

from engine.group.site_state import EVERY_VOLUME, Role
from engine.peering.pair_states import PairState
from engine.peering.role_exports import ClosedBy
from protocol.errors import WrongState
from protocol.events import VolumeCreated, VolumeDeleted
from protocol.limits import BLOCK_BYTES, HEARTBEAT_TIMEOUT_S
from site_primary.shipping.comparison import Choice
from tests.sim.sim_site import GROUP, SimSite
from tests.unit.daemon.two_sites import TwoSites


def claimed(sites: TwoSites) -> None:
    """`b` falls silent, takes over, and `a` gives way to it."""
    sites.part()
    sites.world.run_for(HEARTBEAT_TIMEOUT_S + 1)
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    sites.heal()
    sites.until(lambda: sites.role(sites.a) is Role.SECONDARY)
    sites.until_paired(sites.b)


def create(sites: TwoSites, site: SimSite, name: str) -> int:
    """A volume of that name, made at a site that writes; its id."""
    group = sites.group(site)
    group.append_records([VolumeCreated(name=name, size_bytes=64 * BLOCK_BYTES)])
    return group.volume(name).id


def handed_over(sites: TwoSites, source: SimSite, target: SimSite) -> None:
    """One site gives the group to the other, which writes it then."""
    sites.until_paired(source)
    sites.process(source).pairs.hand_over(sites.group(source))
    sites.until(lambda: sites.role(target) is Role.PRIMARY and sites.role(source) is Role.SECONDARY)


@pytest.mark.parametrize("deleted", [True, False])
def test_c2_what_a_peer_closed_it_does_not_open_as_another_volume_of_that_name(
    sites: TwoSites, deleted: bool
) -> None:
    claimed(sites)
    theirs = sites.group(sites.b)
    if deleted:
        theirs.append_records([VolumeDeleted(volume=theirs.volume("v").id)])
    forged = create(sites, sites.b, "v")
    handed_over(sites, sites.b, sites.a)
    assert sites.group(sites.a).volume("v").id == forged
    with pytest.raises(WrongState, match="offline: fenced"):
        sites.attach(sites.a)
    assert sites.process(sites.a).exports.names() == []
    (said,) = [fields for site, kind, fields in sites.events if (site, kind) == ("a", "group.not_online")]
    assert said["error"].endswith(": g/v")
    sites.online(sites.a)
    assert sites.attach(sites.a).connected


def test_what_a_peer_made_since_it_closed_the_group_is_opened_one_by_one(sites: TwoSites) -> None:
    claimed(sites)
    create(sites, sites.b, "w")
    handed_over(sites, sites.b, sites.a)
    sites.online(sites.a)
    assert sites.attach(sites.a).connected
    with pytest.raises(WrongState, match="offline: fenced"):
        sites.attach(sites.a, "w")
    create(sites, sites.a, "x")
    assert sites.attach(sites.a, "x").connected, "made here, once the writing is back"


def test_it_stays_closed_when_the_site_dies_before_each_volume_has_a_row(sites: TwoSites) -> None:
    claimed(sites)
    made = create(sites, sites.b, "w")
    handed_over(sites, sites.b, sites.a)
    state = sites.process(sites.a).state
    state.put_closed(
        GROUP, {made: None, EVERY_VOLUME: f"{ClosedBy.AUTHORITY.value}b"}
    )  # as before that was written
    sites.restart(sites.a)
    sites.until(lambda: GROUP in sites.process(sites.a).shippers)
    assert sites.refused(sites.a)
    assert sites.refused(sites.a, "w")
    sites.until_paired(sites.a)
    sites.online(sites.a, "w")
    assert sites.attach(sites.a, "w").connected
    assert sites.refused(sites.a)


def test_a_role_moves_row_of_before_opens_nothing_that_a_peer_closed(sites: TwoSites) -> None:
    """As a hand-over leaves it that was cut short before anything was handed over."""
    volume = sites.group(sites.a).volume("v").id
    sites.process(sites.a).state.set_closed(GROUP, [volume], f"{ClosedBy.OPERATOR.value}b")
    claimed(sites)
    handed_over(sites, sites.b, sites.a)
    assert sites.refused(sites.a)


def test_volumes_made_at_the_other_site_between_two_switchovers_need_no_operator(sites: TwoSites) -> None:
    handed_over(sites, sites.a, sites.b)
    assert sites.attach(sites.b).connected
    create(sites, sites.b, "w")
    handed_over(sites, sites.b, sites.a)
    assert sites.attach(sites.a).connected
    assert sites.attach(sites.a, "w").connected
    handed_over(sites, sites.a, sites.b)
    assert sites.attach(sites.b).connected
    assert sites.attach(sites.b, "w").connected


def test_a_takeover_opens_what_a_peer_made_since_too(sites: TwoSites) -> None:
    claimed(sites)
    create(sites, sites.b, "w")
    sites.until_paired(sites.b)
    sites.part()
    sites.process(sites.a).pairs.take_over(sites.group(sites.a), PairState.TAKEN_OVER)
    assert not sites.refused(sites.a)
    assert not sites.refused(sites.a, "w")


def test_what_an_operator_closed_stays_so_whatever_the_peer_does(sites: TwoSites) -> None:
    state, volume = sites.process(sites.a).state, sites.group(sites.a).volume("v").id
    state.set_closed(GROUP, [volume], "closed by an operator")
    claimed(sites)
    handed_over(sites, sites.b, sites.a)
    with pytest.raises(WrongState, match="offline: closed by an operator"):
        sites.attach(sites.a)


@pytest.mark.parametrize("failing", [False, True])
def test_c43_hosts_of_a_detached_site_come_back_by_its_operators_word(sites: TwoSites, failing: bool) -> None:
    """They hold caches of what the resync left behind as a branch."""
    sites.process(sites.a).pairs.split(GROUP)
    sites.until(lambda: sites.process(sites.b).receivers[GROUP].state is PairState.SPLIT)
    sites.process(sites.b).pairs.detach(sites.group(sites.b))
    guest = sites.attach(sites.b)
    sites.write(sites.b)
    if failing:
        sites.commit_fails_next(sites.b)
    sites.process(sites.a).pairs.resync(sites.group(sites.a), Choice.LOCAL)
    sites.until(lambda: not guest.connected and sites.role(sites.b) is Role.SECONDARY)
    create(sites, sites.a, "w")
    handed_over(sites, sites.a, sites.b)
    for name in ("v", "w"):
        with pytest.raises(WrongState, match="offline: fenced: the pair went on from what was at a"):
            sites.attach(sites.b, name)
        sites.online(sites.b, name)
        assert sites.attach(sites.b, name).connected
    handed_over(sites, sites.b, sites.a)
    assert sites.attach(sites.a).connected, "nobody closed anything there but its own operator"
