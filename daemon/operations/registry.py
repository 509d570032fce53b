"""Which function carries out a command. Each module of this package registers its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from daemon.operations.paging import NextPage, Page
from daemon.site import Site
from protocol.commands.base import BaseCommand, Command, ReplyType

AnyCommand = TypeVar("AnyCommand", bound=Command)
Operation = Callable[[Site, AnyCommand], Awaitable[ReplyType | Page[ReplyType] | NextPage]]

OPERATIONS: dict[type[Command], Operation[Any, Any]] = {}


def carries_out(
    command: type[BaseCommand[ReplyType]],
) -> Callable[[Operation[AnyCommand, ReplyType]], Operation[AnyCommand, ReplyType]]:
    """Register the function that carries `command` out."""

    def register(operation: Operation[AnyCommand, ReplyType]) -> Operation[AnyCommand, ReplyType]:
        OPERATIONS[command] = operation
        return operation

    return register
