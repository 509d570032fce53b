"""What every control command and reply is made of: names, sizes and bounds, checked while decoding.

A command says by its base what its reply is: `class VolumeShow(Query[VolumeShowReply])`. Commands refuse
fields and values that they do not know; replies ignore them, since a newer daemon may say more.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta

from protocol.bounds import NAME
from protocol.errors import Unsafe, UsageError
from protocol.limits import LABEL_CHARS_MAX, NAME_CHARS_MAX
from protocol.roles import OperatorRole

TOKEN_CHARS_MAX = 4096
ROWS_MAX = 10_000
WAIT_S_MAX = 3_600.0

Label = Annotated[str, Meta(pattern=rf"^[a-z][a-z0-9._-]{{0,{LABEL_CHARS_MAX - 1}}}\Z")]
Confirm = Annotated[str, Meta(max_length=2 * NAME_CHARS_MAX + 1)]
Rows = Annotated[int, Meta(ge=1, le=ROWS_MAX)]
WaitSeconds = Annotated[float, Meta(ge=0, le=WAIT_S_MAX)]
PairMode = Literal["async", "sync", "sync-strict"]
Compress = Literal["none", "zstd"]
ResyncSource = Literal["local", "remote"]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every reply, and of what replies hold. Ids and timelines are hex strings, times RFC 3339 in UTC
    (`cut_text.time_text`), sizes bytes, spans seconds; an unknown figure is null."""


ReplyType = TypeVar("ReplyType", bound=Reply)


class BaseCommand(
    msgspec.Struct,
    Generic[ReplyType],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="name",
):
    """Base of every command; `name` is its tag, `needs` the least role that may give it over the network."""

    needs: ClassVar[OperatorRole] = OperatorRole.OPERATOR


Command = BaseCommand[Any]


class Query(BaseCommand[ReplyType], Generic[ReplyType], frozen=True, kw_only=True):
    """A command that changes nothing: safe to send twice."""

    needs: ClassVar[OperatorRole] = OperatorRole.VIEWER


def reply_type(command: type[BaseCommand[ReplyType]]) -> type[ReplyType]:
    """The type of a command's reply."""
    for base in command.__orig_bases__:  # type: ignore[attr-defined] # typing's record of `Base[Reply]`
        for argument in get_args(base):
            if isinstance(argument, type) and issubclass(argument, Reply):
                return argument  # type: ignore[return-value]
    raise TypeError(f"{command.__name__} does not say what its reply is")


def command_name(command: Command) -> str:
    """The name of a command as in its tag: `volume.create`."""
    return str(command.__struct_config__.tag)


def check_name(text: str, what: str) -> str:
    """A group, volume or peer name as it is. Raises UsageError. `what` is the noun for the message."""
    if NAME.fullmatch(text):
        return text
    rule = f"must match [a-z][a-z0-9._-]* with at most {NAME_CHARS_MAX} characters"
    raise UsageError(f"{what} name {text!r} {rule}", subject=text)


def parse_volume_name(text: str) -> tuple[str, str]:
    """Group and volume of `G/V`. Raises UsageError."""
    group, slash, volume = text.partition("/")
    if not slash:
        raise UsageError(f"{text!r} names no volume", subject=text, next_step=f"write {text}/VOLUME")
    return check_name(group, "group"), check_name(volume, "volume")


def check_confirm(confirm: str, name: str, *, dry_run: bool = True, look: str = "--dry-run") -> None:
    """Raises Unsafe unless a destructive command was confirmed with the name of what it changes.
    `dry_run`: whether the command has such a form to look with first; `look`: the option that asks for it."""
    if confirm != name:
        said = f"confirmed {confirm!r}, not {name!r}" if confirm else "changes what hosts see"
        hint = f", or look with {look}" if dry_run else ""
        raise Unsafe(f"{name}: {said}", subject=name, next_step=f"add --confirm {name}{hint}")
