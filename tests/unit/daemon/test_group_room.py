"""How many groups a site has, how many of them a peer makes, and which descriptors it leaves."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator

import pytest

from daemon.group_room import GroupRoom, descriptors_left
from engine.group.site_state import GroupRow, PairRow, Role, SiteState
from engine.peering.pair_states import Mode, PairState
from engine.ports.memory_store import MemoryStore
from protocol.errors import Refused
from protocol.limits import (
    DESCRIPTORS_OF_GROUP,
    DESCRIPTORS_OF_SITE,
    GROUPS_MAX,
    PEER_GROUPS_MAX,
    PEER_PAIRS_MAX,
)


@pytest.fixture
def state() -> SiteState:
    return SiteState(MemoryStore())


def add(state: SiteState, count: int, peer: str = "", role: Role = Role.SECONDARY) -> None:
    first = len(state.groups())
    for number in range(first, first + count):
        name = f"g{number}"
        state.put_group(GroupRow(name=name, group_id=f"{number:016x}", role=role, head=0, created_utc_ns=1))
        if peer:
            state.put_pair(
                PairRow(group=name, peer=peer, mode=Mode.ASYNC, state=PairState.COPYING, reason="")
            )


def test_a_peer_makes_its_share_and_the_operator_the_rest(state: SiteState) -> None:
    room = GroupRoom(state, descriptors_left)
    add(state, PEER_GROUPS_MAX - 1, "lon")
    room.check("new", "lon")
    add(state, 1, "lon")
    with pytest.raises(Refused, match="groups_per_peer"):
        room.check("new", "lon")
    room.check("new", "rom")
    room.check("new")
    add(state, GROUPS_MAX - PEER_GROUPS_MAX)
    for peer in ("", "lon", "rom"):
        with pytest.raises(Refused, match="GROUPS_MAX"):
            room.check("new", peer)


def test_what_the_operator_writes_here_is_not_the_peers(state: SiteState) -> None:
    add(state, PEER_GROUPS_MAX, "lon", Role.PRIMARY)
    GroupRoom(state, descriptors_left).check("new", "lon")


def test_pairs_with_one_peer(state: SiteState) -> None:
    """Whoever made them."""
    room = GroupRoom(state, descriptors_left)
    add(state, PEER_PAIRS_MAX - 1, "lon", Role.PRIMARY)
    room.check_pairs("new", "lon")
    room.check("new", "lon")
    add(state, 1, "lon")
    with pytest.raises(Refused, match="PEER_PAIRS_MAX"):
        room.check_pairs("new", "lon")
    with pytest.raises(Refused, match="PEER_PAIRS_MAX"):
        room.check("new", "lon")
    room.check("new")
    room.check_pairs("new", "rom")


def test_one_that_was_begun_before_needs_no_more_room(state: SiteState) -> None:
    add(state, GROUPS_MAX, "lon")
    GroupRoom(state, descriptors_left).check("g0", "lon")


@pytest.fixture
def soft_limit() -> Iterator[Callable[[int], None]]:
    """Sets how many files this process may open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, limits[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_the_last_descriptors_are_for_the_groups_that_are_there(
    state: SiteState, soft_limit: Callable[[int], None]
) -> None:
    soft_limit(DESCRIPTORS_OF_SITE + 3 * DESCRIPTORS_OF_GROUP)
    room = GroupRoom(state, descriptors_left)
    held = []
    while descriptors_left():
        held.append(os.open(os.devnull, os.O_RDONLY))
    try:
        with pytest.raises(Refused, match="NBD_DESCRIPTORS_RESERVED"):
            room.check("new", "lon")
        room.check("new")
    finally:
        for each in held:
            os.close(each)


def test_c39_descriptors_are_counted_before_they_are_taken(
    state: SiteState, soft_limit: Callable[[int], None]
) -> None:
    """345 groups under ulimit 1024: each was made with three descriptors and wanted more once it was paired,
    until a dial found none and stopped the daemon."""
    soft_limit(1024)
    room = GroupRoom(state, descriptors_left)
    most = (1024 - DESCRIPTORS_OF_SITE) // DESCRIPTORS_OF_GROUP
    assert most < GROUPS_MAX
    add(state, most - 1)
    room.check("new")
    add(state, 1)
    with pytest.raises(Refused, match="1024 files") as caught:
        room.check("new")
    assert "LimitNOFILE" in caught.value.next_step
    room.check("g0")
    soft_limit(4096)
    room.check("new")
