"""The phases of a shipping session: one table, phase × step → next phase, and what each phase hears.

    phase     connection  heard    when its timer runs out    entered
    IDLE      none        -        -                          not begun, split, closed
    WAITING   none        -        dial                       after a session that failed
    GREETING  open        Welcome  say HELLO again            by a dial
    FETCHING  open        Fetched  -                          to take in what the peer has and this site lacks
    BASE      open        BaseAck  send on, say where we are  to send a base: the journal does not lead on
    SHIPPING  open        Ack      send on, say where we are  to send the journal from what the peer has
    PARTING   open        -        hang up                    by a split: the last word is on its way

In BASE what the peer has for it is heard too (BaseSeeds, BaseDigests).

RESET and REFUSED are heard from GREETING to SHIPPING, and silence ends a session there. PARTING hears only
that a newer authority writes. An answer that its phase does not hear came late or twice: it changes nothing.

Pure: no I/O.
"""

from __future__ import annotations

from enum import Enum

from protocol.base_messages import BaseAck, BaseDigests, BaseSeeds
from protocol.messages import Ack, Fetched, Message, Welcome


class Phase(Enum):
    """Where a session is; one row each of the module's table."""

    IDLE = "idle"
    WAITING = "waiting"
    GREETING = "greeting"
    FETCHING = "fetching"
    BASE = "base"
    SHIPPING = "shipping"
    PARTING = "parting"


class Step(Enum):
    """What happens to a session."""

    DIAL = "dial"  # ends whatever session there is
    FETCH = "fetch"
    SEND_BASE = "send base"
    SHIP = "ship"
    RETRY = "retry"  # it ended without having been asked to
    PART = "part"
    HANG_UP = "hang up"


# An operator asks for these, or what was to be fetched or sent is there: possible at any time.
_ALWAYS = {Step.DIAL: Phase.GREETING, Step.PART: Phase.PARTING, Step.HANG_UP: Phase.IDLE}

TRANSITIONS: dict[tuple[Phase, Step], Phase] = {
    **{(phase, step): then for phase in Phase for step, then in _ALWAYS.items()},
    (Phase.GREETING, Step.FETCH): Phase.FETCHING,
    (Phase.GREETING, Step.SEND_BASE): Phase.BASE,
    (Phase.GREETING, Step.SHIP): Phase.SHIPPING,
    # Not from IDLE and PARTING: a pair that is split has no session to try again.
    (Phase.WAITING, Step.RETRY): Phase.WAITING,
    (Phase.GREETING, Step.RETRY): Phase.WAITING,
    (Phase.FETCHING, Step.RETRY): Phase.WAITING,
    (Phase.BASE, Step.RETRY): Phase.WAITING,
    (Phase.SHIPPING, Step.RETRY): Phase.WAITING,
}

CONNECTED = frozenset({Phase.FETCHING, Phase.BASE, Phase.SHIPPING})

HEARD: dict[Phase, tuple[type[Message], ...]] = {
    Phase.GREETING: (Welcome,),
    Phase.FETCHING: (Fetched,),
    Phase.BASE: (BaseAck, BaseSeeds, BaseDigests),
    Phase.SHIPPING: (Ack,),
}
ANSWERS = tuple(kind for kinds in HEARD.values() for kind in kinds)


def next_phase(phase: Phase, step: Step) -> Phase:
    """The phase that `step` leads to. ValueError for a pair that is not in the table: a defect here, as no
    message of the peer's is a step."""
    found = TRANSITIONS.get((phase, step))
    if found is None:
        raise ValueError(f"a session that is {phase.value} cannot {step.value}")
    return found
