"""Lists in pages: how a client gets one that is too large for a reply.

A `PagedCommand` has `after`. Left out, as clients of earlier versions do, it asks for the whole list, which
is refused if one reply cannot carry it. "" asks for the first page. Each page has `more`: what `after` has to
be for the next one, null in the last. The first page has the whole reply but for the rows that follow; the
others have those rows, and fields that they bring up to date. `add_page` puts them together.

`after` is the key of the last row that came, in the list's order: a JSON array, for nobody but the daemon to
read. A key stays with its row: rows that come and go in between neither repeat another one nor hide it.
Sans-I/O; no clock.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from protocol.commands.base import Query, Reply, ReplyType
from protocol.errors import UsageError
from protocol.limits import PAGE_KEY_CHARS_MAX

MORE = "more"
Key = TypeVar("Key", bound=tuple[Any, ...])
_row_encoder = msgspec.msgpack.Encoder()


class PagedCommand(Query[ReplyType], Generic[ReplyType], frozen=True, kw_only=True):
    """A command whose reply comes in pages if it is asked for them."""

    after: Annotated[str, Meta(max_length=PAGE_KEY_CHARS_MAX)] | UnsetType = UNSET


def key_text(key: tuple[Any, ...]) -> str:
    """A row's key as `after` has it."""
    return msgspec.json.encode(key).decode()


def read_key(text: str, kind: type[Key]) -> Key:
    """The key in `after`. Raises UsageError unless it is of that type."""
    try:
        key: Key = msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise UsageError(f"bad request: no page begins after {text[:64]!r}") from error
    return key


def row_bytes(row: Reply) -> int:
    """What a row takes in a reply."""
    return len(_row_encoder.encode(row))


def add_page(whole: dict[str, Any], page: dict[str, Any]) -> None:
    """Add the next page to those before it: lists go on, anything else is as it says."""
    for name, value in page.items():
        before = whole.get(name)
        if isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        elif isinstance(before, dict) and isinstance(value, dict):
            add_page(before, value)
        else:
            whole[name] = value
