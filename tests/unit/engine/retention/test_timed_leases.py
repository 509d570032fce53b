"""Leases that end by themselves: those of peers and of this site are counted apart, all end by one commit."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager

import pytest

from engine.group.site_state import SiteState
from engine.ports.lmdb_store import LmdbStore
from engine.ports.store import WriteTransaction
from engine.retention.timed_leases import LOOK_AGAIN_S, asked_lease
from protocol.errors import Busy
from protocol.limits import PEER_LEASES_MAX, TIMED_LEASES_MAX
from tests.unit.engine.group_rig import GroupRig


def test_a_peer_that_holds_all_it_may_leaves_the_way_back_from_a_restore(rig: GroupRig) -> None:
    rig.create("root", 4)
    timed, cut = rig.group.kept.timed, rig.end
    for number in range(PEER_LEASES_MAX):
        timed.hold(asked_lease("lon", str(number)), cut, 3600)
    with pytest.raises(Busy, match="by peers"):
        timed.hold(asked_lease("rom", "one more"), cut, 3600)
    timed.hold(asked_lease("lon", "0"), cut, 7200)  # in place of what it held
    timed.hold("undo g/root", cut, 3600)
    rig.reopen()
    timed = rig.group.kept.timed
    with pytest.raises(Busy, match="by peers"):
        timed.hold(asked_lease("lon", "one more"), cut, 3600)
    assert timed.get("undo g/root") == cut


def test_what_this_site_holds_leaves_room_for_what_peers_ask(rig: GroupRig) -> None:
    rig.create("root", 4)
    timed, cut = rig.group.kept.timed, rig.end
    for number in range(TIMED_LEASES_MAX):
        timed.hold(f"restore g/{number}", cut, 3600)
    with pytest.raises(Busy, match="by this site"):
        timed.hold("undo g/root", cut, 3600)
    timed.hold(asked_lease("lon", "restore"), cut, 3600)


def test_a_clock_that_is_set_ends_no_lease_early_and_keeps_none_for_years(rig: GroupRig) -> None:
    rig.create("root", 4)
    year_s = 365 * 86_400.0
    timed, cut = rig.group.kept.timed, rig.end
    timed.hold("undo g/root", cut, 3600)
    rig.clock.jump(year_s)
    rig.settle(3000)
    assert timed.get("undo g/root") == cut
    rig.clock.jump(-2 * year_s)
    rig.settle(700)
    assert timed.get("undo g/root") is None


def test_those_that_end_together_are_let_go_by_one_commit(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit of each held up every host for as long as 1,024 of them take."""
    rig.create("root", 4)
    timed, cut = rig.group.kept.timed, rig.end
    for number in range(PEER_LEASES_MAX):
        timed.hold(asked_lease("lon", str(number)), cut, 60)
    timed.hold("undo g/root", cut, 3600)
    commits = []
    write = LmdbStore.write

    def counted(store: LmdbStore) -> AbstractContextManager[WriteTransaction]:
        commits.append(store.path.name)
        return write(store)

    monkeypatch.setattr(LmdbStore, "write", counted)
    rig.settle(61)
    assert commits == ["state.mdb"]
    assert rig.group.state.leases("g") == {"undo g/root": cut}
    assert set(rig.group.state.lease_ends("g")) == {"undo g/root"}
    assert timed.get(asked_lease("lon", "0")) is None
    rig.settle(LOOK_AGAIN_S)
    assert commits == ["state.mdb"] * 2
    assert rig.group.kept.leases.cuts() == set()


def test_one_whose_row_cannot_be_removed_ends_all_the_same(
    rig: GroupRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site's own file system is full: that stopped the whole group, and kept it closed at the start."""
    rig.create("root", 4)
    cut = rig.end
    rig.group.kept.timed.hold("undo g/root", cut, 60)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(SiteState, "remove_leases", full)
        rig.settle(61)
        for _ in range(2):
            assert rig.group.kept.timed.get("undo g/root") is None
            assert cut not in rig.group.kept.leases.cuts()
            assert rig.group.state.leases("g") == {"undo g/root": cut}
            rig.reopen()
    rig.reopen()
    assert rig.group.state.leases("g") == {}
