"""What a guard process is told and what it says: one JSON object a line (`site_primary/guard.py`).

    order     first line of the guard's standard input
    thaw      a later line `thaw`, or the input's end
    reports   on its standard output: FROZEN once, if the freeze worked, and ENDED last

The order is also what the guard notes in the data directory while hosts may be frozen. Sans-I/O.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.bounds import Name
from protocol.errors import RemoteProtocolError
from protocol.limits import HOOK_TIMEOUT_MAX_S, HOOK_WORDS_MAX

THAW_LINE = b"thaw\n"

Words = Annotated[tuple[str, ...], Meta(max_length=HOOK_WORDS_MAX)]
HookTimeout = Annotated[float, Meta(gt=0, le=HOOK_TIMEOUT_MAX_S)]


class GuardOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to guard. No `freeze` words: only thaw what a guard that is gone left frozen. `timeout_s` runs
    from the start of the freeze to the start of the thaw. `thaw_waits`: the thaw is started before the freeze
    and waits for its standard input. `directory`: the site's data directory, where the note is kept; empty:
    no note (hooks of a command line)."""

    hook: Name
    group: Name
    freeze: Words = ()
    thaw: Annotated[Words, Meta(min_length=1)]
    thaw_waits: bool = False
    timeout_s: HookTimeout
    directory: str = ""


class GuardReport(msgspec.Struct, frozen=True, kw_only=True):
    """`frozen`: hosts are held still, the freeze took `freeze_ms`. `ended`: the thaw was run; `failure` says
    why nothing was frozen (empty: it was), `timed_out` that this was the time-out, `late` that the thaw did
    not wait for its order, `stuck` why the thaw failed (empty: it worked), `frozen_ms` how long hosts were
    frozen."""

    state: Literal["frozen", "ended"]
    freeze_ms: float | None = None
    frozen_ms: float | None = None
    failure: str = ""
    timed_out: bool = False
    late: bool = False
    stuck: str = ""


def encode_line(message: GuardOrder | GuardReport) -> bytes:
    """One line."""
    return msgspec.json.encode(message) + b"\n"


def decode_order(line: bytes) -> GuardOrder:
    """Raises RemoteProtocolError."""
    try:
        return msgspec.json.decode(line, type=GuardOrder)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not an order to a guard: {error}") from error


def decode_report(line: bytes) -> GuardReport:
    """Raises RemoteProtocolError."""
    try:
        return msgspec.json.decode(line, type=GuardReport)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not a guard's report: {error}") from error
