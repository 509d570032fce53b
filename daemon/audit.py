"""What operators ask a site to change, each command as an event: who, what, and how it ended.

Never what a command says beside the names of what it is about: that may be secret.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from engine.group.listeners import Emit
from protocol.commands.base import Command, Query, command_name
from protocol.errors import FarshoreError

T = TypeVar("T")
# Of a command that only says what it would do.
TRIALS = ("dry_run", "plan")
NAMES = ("volume", "backup", "name", "job")


async def audited(emit: Emit, command: Command, work: Awaitable[T]) -> T:
    """Carry a command out, and leave an event if it changes something or was to."""
    if isinstance(command, Query) or any(getattr(command, trial, False) for trial in TRIALS):
        return await work
    outcome = "stopped"  # a defect, or nobody waits for it any more
    try:
        answer = await work
        outcome = "done"
    except FarshoreError as error:
        outcome = error.code
        raise
    finally:
        group, subject = _names(command)
        kind = "command.done" if outcome == "done" else "command.failed"
        emit(kind, group=group, object=subject, command=command_name(command), outcome=outcome)
    return answer


def _names(command: Command) -> tuple[str, str]:
    """Its group, and the object within that it is about."""
    group = str(getattr(command, "group", None) or "")
    said = (getattr(command, name, None) for name in NAMES)
    subject = next((str(name) for name in said if name), "")
    return group, f"{group}/{subject}" if group and subject else subject
