"""Commands, given by the control sockets of real sites in this process, and what they hold the loop for.

A command that is refused raises: it did no work, so it was not watched. What can be done to an object only
once is done to several, and the best of them counts: a garbage collection or a cold cache harms one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle, islice
from typing import Any

from console.client import Client
from daemon.site import Site
from protocol.commands.base import BaseCommand, Query, ReplyType, command_name
from tests.support.loop_watch import LoopWatch, Tries, watched
from tests.unit.daemon.stage import Stage
from tests.unit.daemon.test_loop_is_free import PAUSE_S, TRIES, served

CALL_S = 120.0
# Of a query that held the loop in all tries so far: what holds the loop holds it each time.
QUERY_TRIES = 12
Kind = type[BaseCommand[Any]]


class Giver:
    """Gives commands. `given` are the kinds that did their work."""

    def __init__(self, watch: LoopWatch) -> None:
        self.given: set[Kind] = set()
        self._works: dict[str, Tries] = {}
        self._watch = watch

    async def __call__(
        self, site: Site, *commands: BaseCommand[ReplyType], note: str = ""
    ) -> list[ReplyType]:
        """The replies to commands of one kind whose work is alike, and like that of others with that `note`.
        A query of a site is asked again, and again while it holds the loop."""
        (kind,) = {type(command) for command in commands}
        name, again = f"{command_name(commands[0])} {note}".strip(), len(commands)
        if issubclass(kind, Query):
            name, again = f"{name} at {site.config.name}", max(QUERY_TRIES, len(commands))
        tries = self._works.setdefault(name, Tries())
        replies = list[ReplyType]()
        for number, command in enumerate(islice(cycle(commands), again)):
            if number >= max(len(commands), TRIES) and not tries.over:
                break
            if tries.over:
                await asyncio.sleep(PAUSE_S)
            self._watch.reset()
            replies.append(await asyncio.to_thread(_call, site, command))
            tries.add(self._watch)
        self.given.add(kind)
        return replies

    def held(self) -> dict[str, str]:
        """Those that held the loop in each of their tries: for how long at least, and where."""
        few = [name for name, tries in self._works.items() if tries.count < TRIES]
        assert not few, f"too few tries to tell a command from what else happens: {few}"
        return {name: tries.text() for name, tries in self._works.items() if tries.over}


def _call(site: Site, command: BaseCommand[ReplyType]) -> ReplyType:
    with Client(site.control_endpoint) as client:
        return client.call(command, CALL_S)


@asynccontextmanager
async def giving(stage: Stage) -> AsyncIterator[Giver]:
    """While it lasts, both sites answer, and the loop is watched."""
    async with served(stage):
        with watched() as watch:
            yield Giver(watch)
