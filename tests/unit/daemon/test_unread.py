"""A frame that is not understood, between two whole sites: refused while it is new, carried as history."""

from __future__ import annotations

import pytest

from engine.peering.pair_states import PairState
from protocol.errors import WrongState
from protocol.positions import Cut
from tests.sim.sim_site import GROUP
from tests.unit.daemon.two_sites import TwoSites
from tests.unit.engine.unread_frames import UNREAD_NAMES, journal_unread, unread_kinds


def written_by_an_older_version(sites: TwoSites, name: str) -> Cut:
    """As a version without the check writes one at `a`, in the middle of a healthy session."""
    group = sites.group(sites.a)
    frame = journal_unread(group, unread_kinds(group.volume("v").id)[name])
    for listener in group.listeners.frame:
        listener(frame)
    return Cut(frame.prefix.timeline, frame.prefix.position)


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_it_is_refused_new_and_carried_once_the_peer_stands_by_it_c1_c7(sites: TwoSites, name: str) -> None:
    place = written_by_an_older_version(sites, name)
    sites.write(sites.a, 5)
    sites.until(lambda: "b" in sites.said("pair.session_ended"))
    assert sites.group(sites.b).end == place
    assert not len(sites.group(sites.b).unread)
    sites.until_paired(sites.a)
    one, other = sites.group(sites.a), sites.group(sites.b)
    assert (other.end, other.head.digest) == (one.end, one.head.digest)
    assert [each.cut for each in other.unread.all()] == [place]
    assert sites.said("journal.unread") == ["b"]
    ended = len(sites.said("pair.session_ended"))
    sites.write(sites.a, 6)
    sites.until_paired(sites.a)
    assert len(sites.said("pair.session_ended")) == ended
    for site in (sites.b, sites.a):
        sites.restart(site)
        sites.until_paired(sites.a)
        assert [each.cut for each in sites.group(site).unread.all()] == [place]


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_hosts_get_a_volume_that_it_may_have_changed_by_an_operators_word(sites: TwoSites, name: str) -> None:
    written_by_an_older_version(sites, name)
    sites.until_paired(sites.a)
    sites.restart(sites.a)
    sites.until_paired(sites.a)
    group = sites.group(sites.a)
    volume = group.volume("v")
    exports = sites.process(sites.a).exports
    if unread_kinds(volume.id)[name].touches:
        with pytest.raises(WrongState, match="cannot be understood"):
            sites.attach(sites.a)
        assert exports.names() == []
        group.unread.accepted.accept(volume.id, group.end)
    for _ in range(2):
        assert sites.attach(sites.a).connected
        assert exports.names() == [f"{GROUP}/v"]
        sites.restart(sites.a)
        sites.until_paired(sites.a)
        exports = sites.process(sites.a).exports


def test_a_site_that_takes_over_does_not_serve_what_nobody_accepted_there(sites: TwoSites) -> None:
    written_by_an_older_version(sites, "no table at all")
    sites.until_paired(sites.a)
    sites.part()
    sites.process(sites.b).pairs.take_over(sites.group(sites.b), PairState.TAKEN_OVER)
    assert sites.refused(sites.b)
    group = sites.group(sites.b)
    group.unread.accepted.accept(group.volume("v").id, group.end)
    assert sites.attach(sites.b).connected


@pytest.mark.parametrize("name", UNREAD_NAMES)
def test_what_an_old_copy_lacks_is_fetched_with_it(sites: TwoSites, name: str) -> None:
    """`a` comes back without the end of its journal; `b` has that, with such a frame in it."""
    kept = sites.write(sites.a)
    sites.until_paired(sites.a)
    copy = sites.a.copy()
    place = written_by_an_older_version(sites, name)
    sites.write(sites.a, 1)
    sites.until_paired(sites.a)
    sites.a.end(power=False)
    sites.a.put_back(copy)
    sites.a.start()
    assert sites.group(sites.a).end == kept
    sites.until_paired(sites.a)
    assert sites.said("pair.fetched") == ["a"]
    assert sites.group(sites.a).end == sites.group(sites.b).end
    assert [each.cut for each in sites.group(sites.a).unread.all()] == [place]
