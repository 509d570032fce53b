"""The table of pair states: complete, and what is not in it refuses and changes nothing."""

from __future__ import annotations

import pytest

from engine.peering.pair_states import FIELD_CODES, TRANSITIONS, PairState, PairVerb, next_state
from protocol.errors import WrongState

ALLOWED = [(state, verb) for state in PairState for verb in PairVerb if (state, verb) in TRANSITIONS]
REFUSED = [(state, verb) for state in PairState for verb in PairVerb if (state, verb) not in TRANSITIONS]


def test_a_pair_lives_through_its_life() -> None:
    state = PairState.SIMPLEX
    for verb, expected in [
        (PairVerb.CREATE, PairState.COPYING),
        (PairVerb.CAUGHT_UP, PairState.PAIRED),
        (PairVerb.PEER_LOST, PairState.SUSPENDED),
        (PairVerb.PEER_BACK, PairState.COPYING),
        (PairVerb.CAUGHT_UP, PairState.PAIRED),
        (PairVerb.SPLIT, PairState.SPLIT),
        (PairVerb.RESYNC, PairState.COPYING),
    ]:
        state = next_state(state, verb, "vm1")
        assert state is expected


@pytest.mark.parametrize(("state", "verb"), REFUSED)
def test_what_is_not_in_the_table_is_refused_with_a_next_step(state: PairState, verb: PairVerb) -> None:
    with pytest.raises(WrongState, match="vm1") as caught:
        next_state(state, verb, "vm1")
    assert FIELD_CODES[state] in caught.value.message
    assert caught.value.next_step


def test_every_state_is_reached_and_has_a_way_on() -> None:
    assert set(TRANSITIONS.values()) == set(PairState) - {PairState.SIMPLEX}
    stuck = {state for state in PairState if not any(found is state for found, _ in ALLOWED)}
    assert not stuck


def test_nothing_leads_back_to_in_sync_but_having_caught_up() -> None:
    """No heuristic marks data as in sync (invariant 7)."""
    ways = {verb for (_, verb), state in TRANSITIONS.items() if state is PairState.PAIRED}
    assert ways == {PairVerb.CAUGHT_UP}
    assert TRANSITIONS[PairState.COPYING, PairVerb.CAUGHT_UP] is PairState.PAIRED


def test_states_have_the_fields_codes() -> None:
    assert set(FIELD_CODES) == set(PairState)
