"""A site that is older than it was and knows it: who is served, what is shipped, and what ends it."""

from __future__ import annotations

import pytest

from engine.group.group import Group
from engine.group.holds import Holder
from engine.group.site_state import Role
from engine.peering.pair_states import PairState
from protocol.positions import Cut
from site_primary.shipping.comparison import Choice
from tests.sim.sim_site import SimSite
from tests.unit.daemon.two_sites import TwoSites


class Aged(TwoSites):
    """`age` puts an old copy of a site back; its witness, if there is one, says what it was."""

    def __init__(self) -> None:
        self.lost: Cut | None = None
        super().__init__()

    def opened(self, site: SimSite, group: Group) -> None:
        """See `Witness.opened`."""
        if self.lost is not None:
            group.turned_back.found(self.lost, "the site's witness")

    def age(self, site: SimSite, *, peer_has_it: bool = True, witness: bool = True) -> None:
        """Copied, written to, and put back as the copy, the peer away."""
        site.end(power=False)
        copy = site.copy()
        site.start()
        self.until_paired(self.a)
        if not peer_has_it:
            self.part()
        for block in (1, 2, 3):
            self.write(self.a, block)
        self.group(self.a).when_durable(lambda _: None)
        if peer_has_it:
            self.until_paired(self.a)
            self.part()
        self.world.run_for(2.0)
        group = self.group(site)
        self.lost = Cut(group.head.timeline, group.writer.durable) if witness else None
        site.end(power=False)
        site.put_back(copy)
        site.start()
        self.lost = None


@pytest.fixture
def sites() -> Aged:
    """Paired in mode async."""
    return Aged()


def test_hosts_wait_for_the_peer_however_long_it_is_away_c53(sites: Aged) -> None:
    newest = sites.group(sites.b)
    sites.age(sites.a)
    sites.world.run_for(60.0)
    assert sites.refused(sites.a)
    assert "older here than it was" in sites.group(sites.a).holds.reason
    assert sites.said("group.turned_back") == ["a"]
    sites.heal()
    sites.until_paired(sites.a)
    assert sites.said("group.came_back") == ["a"]
    assert sites.attach(sites.a).connected
    assert sites.group(sites.a).end == newest.end
    sites.write(sites.a, 4)
    sites.until_paired(sites.a)


def test_without_a_witness_the_peer_finds_them_diverged_c53(sites: Aged) -> None:
    sites.age(sites.a, witness=False)
    sites.world.run_for(10.0)
    sites.write(sites.a, 4)  # nobody can know
    sites.heal()
    shipper = sites.shipper(sites.a)
    sites.until(lambda: shipper.state is PairState.DIVERGED)
    assert "a" in sites.said("timeline.turned_back")
    sites.world.run_for(60.0)
    assert sites.said("timeline.turned_back").count("a") == 1, "said once"


def test_what_neither_of_them_holds_is_never_called_paired(sites: Aged) -> None:
    sites.age(sites.a, peer_has_it=False)
    sites.heal()
    shipper = sites.shipper(sites.a)
    sites.until(lambda: shipper.state is PairState.DIVERGED)
    assert "does not hold" in shipper.reason
    assert sites.refused(sites.a)
    sites.world.run_for(30.0)
    assert shipper.state is PairState.DIVERGED
    assert sites.refused(sites.a)


@pytest.mark.parametrize("word", ["accept", "local", "remote"])
def test_an_operator_gives_it_up(sites: Aged, word: str) -> None:
    sites.age(sites.a, peer_has_it=False)
    sites.heal()
    shipper = sites.shipper(sites.a)
    sites.until(lambda: shipper.state is PairState.DIVERGED)
    group = sites.group(sites.a)
    if word == "accept":
        group.turned_back.accept()
    else:
        sites.process(sites.a).pairs.resync(group, Choice(word))
    sites.until(lambda: shipper.state is PairState.PAIRED and not group.holds)
    sites.online(sites.a)
    assert sites.attach(sites.a).connected
    sites.write(sites.a, 4)
    sites.until_paired(sites.a)
    assert sites.group(sites.b).end == group.end


def test_accepted_while_the_peer_is_away_hosts_come_and_histories_part(sites: Aged) -> None:
    sites.age(sites.a)
    sites.world.run_for(10.0)
    sites.group(sites.a).turned_back.accept()
    sites.write(sites.a, 4)
    sites.heal()
    sites.until(lambda: sites.shipper(sites.a).state is PairState.DIVERGED)


def test_a_follower_is_given_what_it_lacks(sites: Aged) -> None:
    sites.age(sites.b)
    group = sites.group(sites.b)
    assert Holder.OLDER in group.holds
    sites.heal()
    sites.until_paired(sites.a)
    sites.until(lambda: not group.holds)
    assert sites.role(sites.b) is Role.SECONDARY
    assert group.end == sites.group(sites.a).end
