"""What each control command does, one module a noun; `dispatch` carries one out."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from daemon.operations.paging import NextPage, Page
from daemon.operations.registry import OPERATIONS
from daemon.site import Site
from protocol.commands.base import BaseCommand, ReplyType, command_name
from protocol.errors import FarshoreError, NoSpace, UsageError, machine_refused, system_error

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


async def dispatch(site: Site, command: BaseCommand[ReplyType]) -> ReplyType | Page[ReplyType] | NextPage:
    """Carry out a command; FarshoreError for the operator."""
    operation = OPERATIONS.get(type(command))
    if operation is None:
        raise UsageError(f"this site does not know {command_name(command)}")
    try:
        answer: Any = await operation(site, command)
    except OSError as error:
        raise _refused(site, command, error) from error
    return answer  # type: ignore[no-any-return]


def _refused(site: Site, command: BaseCommand[ReplyType], error: OSError) -> FarshoreError:
    """What the machine refused, and what is to be done about it."""
    known = system_error(error)
    full = isinstance(known, NoSpace)
    look = "check the disk of the data directory; `farshore events` says what happened"
    return type(known)(
        f"{command_name(command)}: {site.disk.why_full(error) if full else error.strerror or error}",
        subject=str(error.filename or getattr(command, "group", "")),
        next_step=known.next_step if machine_refused(error) else look,
    )
