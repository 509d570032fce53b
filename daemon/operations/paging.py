"""Lists that grow with what a site holds: built row by row, in slices of time, up to what a page takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from daemon.site import Site
from protocol.commands.base import Reply, ReplyType
from protocol.commands.pages import MORE, Key, PagedCommand, key_text, read_key, row_bytes
from protocol.envelopes import encode_data
from protocol.errors import FarshoreError
from protocol.limits import CONTROL_MESSAGE_BYTES_MAX, CONTROL_PAGE_BYTES, CONTROL_TURN_S

Item = TypeVar("Item")
Row = TypeVar("Row", bound=Reply)
T = TypeVar("T")


class TimeSlices:
    """Long work on the loop, cut into slices of `CONTROL_TURN_S`: others run between two of them."""

    def __init__(self, site: Site) -> None:
        self._clock = site.clock
        self._began = self._clock.monotonic()

    async def pause(self) -> None:
        """Call between two steps: lets others run if the slice is used up."""
        if self._clock.monotonic() - self._began >= CONTROL_TURN_S:
            await asyncio.sleep(0)
            self._began = self._clock.monotonic()


async def in_slices(site: Site, steps: Generator[None, None, T]) -> T:
    """What comes of the steps (engine.steps), with turns for others in between."""
    slices = TimeSlices(site)
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            found: T = ended.value
            return found
        await slices.pause()


def start_of(command: PagedCommand[Any], kind: type[Key]) -> Key | None:
    """The key of the last row that the client has; None for a first page and a whole list. UsageError."""
    return None if command.after is UNSET or not command.after else read_key(command.after, kind)


def beyond(rows: Iterable[tuple[Key, Item]], start: Key | None) -> list[tuple[Key, Item]]:
    """Rows whose keys come after `start`, in the order of their keys."""
    return sorted((row for row in rows if start is None or row[0] > start), key=itemgetter(0))


@dataclass(frozen=True, slots=True)
class Page(Generic[ReplyType]):
    """A whole list, or its first page: the reply, and `more`."""

    reply: ReplyType
    more: str | UnsetType | None


@dataclass(frozen=True, slots=True)
class NextPage:
    """A further page: the next rows, fields that they bring up to date, and `more`."""

    fields: dict[str, Any]
    more: str | UnsetType | None


def encoded(answer: Reply | Page[Any] | NextPage) -> Raw:
    """What goes to the client."""
    if isinstance(answer, Reply):
        return encode_data(answer)
    if isinstance(answer, NextPage):
        return encode_data({**answer.fields, MORE: answer.more})
    if answer.more is UNSET:
        return encode_data(answer.reply)
    fields = {
        field.encode_name: value
        for field in msgspec.structs.fields(answer.reply)
        if (value := getattr(answer.reply, field.name)) is not UNSET
    }
    return encode_data({**fields, MORE: answer.more})


async def rows_of(
    site: Site,
    command: PagedCommand[Any],
    rows: Iterable[tuple[Key, Item | None]],
    build: Callable[[Item], Row],
) -> tuple[list[Row], str | UnsetType | None]:
    """What `build` makes of the next rows, and `more` of the page; without `after` all of them. A row of None
    is a step in looking for the next one.

    Raises FarshoreError as soon as a whole list is known to be too large."""
    slices, whole = TimeSlices(site), command.after is UNSET
    most = None if whole or command.rows is UNSET else command.rows
    room = CONTROL_MESSAGE_BYTES_MAX if whole else CONTROL_PAGE_BYTES
    built: list[Row] = []
    last: Key | None = None
    for key, item in rows:
        await slices.pause()
        if item is None:
            continue
        if len(built) == most and last is not None:
            return built, key_text(last)
        row = build(item)
        room -= row_bytes(row)
        if room < 0 and whole:
            raise FarshoreError(
                "the list is too large for one reply",
                next_step="use the farshore command of the daemon's version, which asks for it in pages",
            )
        if room < 0 and last is not None:
            return built, key_text(last)
        built.append(row)
        last = key
    return built, UNSET if whole else None
