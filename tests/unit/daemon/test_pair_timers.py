"""What a pair has yet to do is tried once a second whatever happens, and no longer than it matters."""

from __future__ import annotations

import pytest

from engine.group.site_state import Role
from site_secondary.receiver import ReceiverChange
from tests.unit.daemon.two_sites import TwoSites


class Refusing:
    """A site's state that sets no role until `mend`; counts how often it was asked to."""

    def __init__(self, sites: TwoSites, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(sites.process(sites.b).state, "set_role", self._refuse)

    def _refuse(self, *_: object) -> None:
        self.asked += 1
        raise OSError("commit failed as the test asked")

    def mend(self) -> None:
        self._monkeypatch.undo()


def told_many_times(sites: TwoSites) -> None:
    """Whatever is a reason at `b` to look for a hand-over, a hundred times."""
    group, pairs = sites.group(sites.b), sites.process(sites.b).pairs
    for _ in range(100):
        for durable in list(group.listeners.durable):
            durable()
        pairs._receiver_changed(group, ReceiverChange.STATE)
        sites.world.run_for(0.001)


def test_a_hand_over_that_fails_is_tried_once_a_second_whatever_happens(
    sites: TwoSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = Refusing(sites, monkeypatch)
    sites.process(sites.a).pairs.hand_over(sites.group(sites.a))
    sites.until(lambda: refusing.asked > 0)
    told_many_times(sites)
    before = refusing.asked
    assert before <= 2
    sites.world.run_for(5.0)
    assert 4 <= refusing.asked - before <= 6
    refusing.mend()
    sites.until(lambda: sites.role(sites.b) is Role.PRIMARY)
    sites.until_paired(sites.b)


@pytest.mark.parametrize("end", ["close", "delete", "follow"])
def test_a_hand_over_is_tried_no_more_than_it_is_waited_for(
    sites: TwoSites, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    refusing = Refusing(sites, monkeypatch)
    sites.process(sites.a).pairs.hand_over(sites.group(sites.a))
    sites.until(lambda: refusing.asked > 0)
    told_many_times(sites)
    before, pairs, group = refusing.asked, sites.process(sites.b).pairs, sites.group(sites.b)
    match end:
        case "close":
            pairs.close()
        case "delete":
            pairs.delete(group)
        case _:
            pairs.make_receiver(group, "a")  # it looks anew
    sites.world.run_for(5.0)
    assert refusing.asked - before <= (6 if end == "follow" else 0)
