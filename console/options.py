"""Options as commands declare them: seconds that are checked while they are read, and which option a refused
field of a request came from.
"""

from __future__ import annotations

import math
from typing import Annotated

import typer

from protocol.commands.base import ROWS_MAX
from protocol.envelopes import BadField
from protocol.errors import UsageError

_UNITS = {"s": "seconds", "bytes": "bytes"}
# What a command's `--timeout` becomes in the request's envelope, and its `--at` in a command.
_OTHER_NAMES = {"deadline_s": "timeout", "cut": "at"}

# Of lists, which come whole without either.
Limit = Annotated[int | None, typer.Option("--limit", min=1, max=ROWS_MAX, help="At most so many rows.")]
After = Annotated[
    str | None, typer.Option("--after", metavar="NEXT", help="Go on behind the rows of a --limit before.")
]


def seconds(value: float) -> float:
    """An option's callback: a finite number of seconds from 0. Nothing would ever be later than nan."""
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"{value} is no number of seconds from 0.")
    return value


def named(error: BadField, context: typer.Context | None) -> UsageError:
    """The same about the option or argument of the command line; as it is where none is known."""
    name = None if context is None else _name(context, error.field)
    if context is None or name is None:
        return error
    unit = _UNITS.get(error.field.rpartition("_")[2])
    reason = f"{error.reason} (in {unit})" if unit else error.reason
    return UsageError(f"{name}: {reason}", subject=name, next_step=f"{context.command_path} --help")


def _name(context: typer.Context, field: str) -> str | None:
    """A field is called like its option, with the unit behind: `every_s` of `--every`."""
    wanted = [_OTHER_NAMES.get(field, field)]
    while "_" in wanted[-1]:
        wanted.append(wanted[-1].rpartition("_")[0])
    for word in wanted:
        for parameter in context.command.params:
            options = [each.lstrip("-").replace("-", "_") for each in parameter.opts]
            if word == parameter.name or word in options:
                longest = max(parameter.opts, key=len)
                return longest if longest.startswith("-") else str(parameter.metavar or parameter.name)
    return None
