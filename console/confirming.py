"""The name once more, before something that hosts would notice; and long waits that Ctrl-C only leaves.

A person at a terminal is shown what would happen and asked; a script without `--confirm` is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from console.session import Session
from protocol.commands.base import Reply, check_confirm


class DetachedStep(Reply, frozen=True, kw_only=True):
    """Progress of `switchover` and `failback`: Ctrl-C ended the wait, and the work goes on. `next` is a
    command line."""

    group: str
    detached: bool
    next: str


def confirmed(
    session: Session, given: str, name: str, verb: str, *, look: str = "", show: Callable[[], None]
) -> str:
    """The name, confirmed by `--confirm` or typed by a person after `show`. Raises Unsafe for another one or
    none. `verb` ends the question "type NAME to …"; `look` is the option that only shows what would be."""
    if not given and session.interactive:
        show()
        given = session.ask(f"type {name} to {verb}: ")
    check_confirm(given, name, dry_run=bool(look), look=look)
    return given


@contextmanager
def detaching(session: Session, group: str, what: str) -> Iterator[None]:
    """While the site carries something out: Ctrl-C ends the wait and not the work, and says so."""
    try:
        yield
    except KeyboardInterrupt:
        look = f"farshore pair show {group}"
        session.output.progress(DetachedStep(group=group, detached=True, next=look))
        session.output.note(f"detached: {what} of {group} goes on by itself", f"next: {look}")
        raise
