"""Lists in pages: how a client gets one that is too large for a reply.

A `PagedCommand` has `after`. Left out, as clients of earlier versions do, it asks for the whole list, which
is refused if one reply cannot carry it. "" asks for the first page. Each page has `more`: what `after` has to
be for the next one, null in the last. The first page has the whole reply but for the rows that follow; the
others have those rows, and fields that they bring up to date. `add_page` puts them together.

`rows` bounds the rows of a page. A client that was asked for some only says where it ended: `next` of a
`ListReply`, which no daemon sets.

`after` is the key of the last row that came, in the list's order: a JSON array, for nobody but the daemon to
read. A key stays with its row: rows that come and go in between neither repeat another one nor hide it.
Sans-I/O; no clock.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from protocol.commands.base import Query, Reply, ReplyType, Rows, reply_type
from protocol.errors import UsageError
from protocol.limits import PAGE_KEY_CHARS_MAX

MORE = "more"
Key = TypeVar("Key", bound=tuple[Any, ...])
_row_encoder = msgspec.msgpack.Encoder()


class PagedCommand(Query[ReplyType], Generic[ReplyType], frozen=True, kw_only=True):
    """A command whose reply comes in pages if it is asked for them."""

    after: Annotated[str, Meta(max_length=PAGE_KEY_CHARS_MAX)] | UnsetType = UNSET
    rows: Rows | UnsetType = UNSET  # then left out on the wire: older daemons know none


class ListReply(Reply, frozen=True, kw_only=True):
    """A list and nothing else. `next` is there if only some rows were asked for: `--after` of those that
    follow, null behind the last."""

    next: str | UnsetType | None = UNSET


def rows_field(command: PagedCommand[Any]) -> str:
    """The name of the list in the reply to a command whose reply is a `ListReply`."""
    fields = msgspec.structs.fields(reply_type(type(command)))
    (found,) = (field.encode_name for field in fields if field.name != "next")
    return found


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
