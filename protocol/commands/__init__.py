"""Control commands and their replies (`protocol.envelopes` has what they travel in).

A module a noun; every command in it is known here. Whoever executes a command may trust its
fields: unknown ones, unknown names and values out of bounds are refused while decoding. Sans-I/O; no clock.

`COMMANDS` and `AnyCommand` are made when they are first asked for: a client sends commands of one noun, and
loading all of them takes longer than most of what it does.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Union

from protocol.commands.base import BaseCommand, Command

if TYPE_CHECKING:
    COMMANDS: tuple[type[BaseCommand[Any]], ...]
    AnyCommand = Command


def __getattr__(name: str) -> Any:
    if name == "COMMANDS":
        made: Any = tuple(sorted(set(_all()), key=lambda each: str(each.__struct_config__.tag)))
    elif name == "AnyCommand":
        made = Union[__getattr__("COMMANDS")]  # noqa: UP007 - of types that are known when this runs
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made
    return made


def _all() -> Iterator[type[BaseCommand[Any]]]:
    for module in pkgutil.iter_modules(__path__):
        for each in vars(import_module(f"{__name__}.{module.name}")).values():
            # What is generic is a base: it does not say yet what its reply is.
            is_command = isinstance(each, type) and issubclass(each, BaseCommand)
            if is_command and not getattr(each, "__parameters__", ()):
                yield each
