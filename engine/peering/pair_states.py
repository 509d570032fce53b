"""Pair states: one table, state × verb → next state, or a refusal that says why.

A pair is one group at two sites. The words in parentheses are the field's codes, shown beside ours. Anything
not in `TRANSITIONS` is refused and changes nothing.

Pure: no I/O.
"""

from __future__ import annotations

from enum import Enum

from protocol.errors import WrongState


class Mode(Enum):
    """When a host's write is acknowledged."""

    ASYNC = "async"
    SYNC = "sync"
    SYNC_STRICT = "sync-strict"


class PairState(Enum):
    """What a pair is doing."""

    SIMPLEX = "simplex"
    COPYING = "copying"
    PAIRED = "paired"
    SPLIT = "split"
    SUSPENDED = "suspended by error"
    FILLING = "journal filling"
    TAKEN_OVER = "taken over"
    DIVERGED = "diverged"


class PairVerb(Enum):
    """What an operator or the pair itself does."""

    CREATE = "create"
    CAUGHT_UP = "caught up"
    PEER_LOST = "peer lost"
    PEER_BACK = "peer back"
    FAIL = "fail"
    DIVERGE = "diverge"
    FILL = "fill"
    RELIEVE = "relieve"
    SPLIT = "split"
    RESYNC = "resync"


FIELD_CODES: dict[PairState, str] = {
    PairState.SIMPLEX: "SMPL",
    PairState.COPYING: "COPY",
    PairState.PAIRED: "PAIR",
    PairState.SPLIT: "PSUS",
    PairState.SUSPENDED: "PSUE",
    PairState.FILLING: "PFUL",
    PairState.TAKEN_OVER: "SSWS",
    PairState.DIVERGED: "PSUE",
}
FIELD_CODE_SECONDARY_SPLIT = "SSUS"

TRANSITIONS: dict[tuple[PairState, PairVerb], PairState] = {
    (PairState.SIMPLEX, PairVerb.CREATE): PairState.COPYING,
    (PairState.COPYING, PairVerb.CAUGHT_UP): PairState.PAIRED,
    (PairState.COPYING, PairVerb.PEER_LOST): PairState.SUSPENDED,
    (PairState.COPYING, PairVerb.FAIL): PairState.SUSPENDED,
    (PairState.COPYING, PairVerb.DIVERGE): PairState.DIVERGED,
    (PairState.COPYING, PairVerb.SPLIT): PairState.SPLIT,
    (PairState.PAIRED, PairVerb.PEER_LOST): PairState.SUSPENDED,
    (PairState.PAIRED, PairVerb.FAIL): PairState.SUSPENDED,
    (PairState.PAIRED, PairVerb.DIVERGE): PairState.DIVERGED,
    (PairState.PAIRED, PairVerb.SPLIT): PairState.SPLIT,
    (PairState.SUSPENDED, PairVerb.PEER_BACK): PairState.COPYING,
    (PairState.SUSPENDED, PairVerb.FAIL): PairState.SUSPENDED,
    (PairState.SUSPENDED, PairVerb.DIVERGE): PairState.DIVERGED,
    (PairState.SUSPENDED, PairVerb.SPLIT): PairState.SPLIT,
    (PairState.SUSPENDED, PairVerb.RESYNC): PairState.COPYING,
    (PairState.SUSPENDED, PairVerb.FILL): PairState.FILLING,
    (PairState.FILLING, PairVerb.FILL): PairState.FILLING,
    (PairState.FILLING, PairVerb.RELIEVE): PairState.SUSPENDED,
    (PairState.FILLING, PairVerb.PEER_BACK): PairState.COPYING,
    (PairState.FILLING, PairVerb.FAIL): PairState.FILLING,
    (PairState.FILLING, PairVerb.DIVERGE): PairState.DIVERGED,
    (PairState.FILLING, PairVerb.SPLIT): PairState.SPLIT,
    (PairState.FILLING, PairVerb.RESYNC): PairState.COPYING,
    (PairState.TAKEN_OVER, PairVerb.PEER_BACK): PairState.COPYING,
    (PairState.TAKEN_OVER, PairVerb.FAIL): PairState.TAKEN_OVER,
    (PairState.TAKEN_OVER, PairVerb.DIVERGE): PairState.DIVERGED,
    (PairState.TAKEN_OVER, PairVerb.SPLIT): PairState.SPLIT,
    (PairState.TAKEN_OVER, PairVerb.RESYNC): PairState.COPYING,
    (PairState.DIVERGED, PairVerb.PEER_BACK): PairState.COPYING,
    (PairState.DIVERGED, PairVerb.RESYNC): PairState.COPYING,
    (PairState.DIVERGED, PairVerb.SPLIT): PairState.SPLIT,
    (PairState.SPLIT, PairVerb.RESYNC): PairState.COPYING,
    (PairState.SPLIT, PairVerb.DIVERGE): PairState.DIVERGED,
}

_NEXT_STEP: dict[PairState, str] = {
    PairState.SIMPLEX: "`farshore pair create GROUP --with PEER`",
    PairState.COPYING: "`farshore wait GROUP --state paired`",
    PairState.PAIRED: "`farshore pair show GROUP`",
    PairState.SPLIT: "`farshore pair resync GROUP --source local`",
    PairState.SUSPENDED: "`farshore pair show GROUP` says why",
    PairState.FILLING: "bring the peer back, or raise journal_limit_bytes; see `farshore events`",
    PairState.TAKEN_OVER: "`farshore failback GROUP` once the other site is back",
    PairState.DIVERGED: "`farshore branch list GROUP`, then `farshore pair resync GROUP --source local` or "
    "`--source remote`",
}


def next_state(state: PairState, verb: PairVerb, group: str) -> PairState:
    """The state that `verb` leads to; WrongState names the group and what to try."""
    found = TRANSITIONS.get((state, verb))
    if found is None:
        raise WrongState(
            f"pair {group} is {state.value} ({FIELD_CODES[state]}): {verb.value} is not possible",
            subject=group,
            next_step=_NEXT_STEP[state].replace("GROUP", group),
        )
    return found
