"""What every control command is made of: names, sizes and bounds, checked while decoding."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.errors import UsageError
from protocol.limits import BLOCK_BYTES, LABEL_CHARS_MAX, NAME_CHARS_MAX, VOLUME_BYTES_MAX

TOKEN_CHARS_MAX = 4096
ROWS_MAX = 10_000
WAIT_S_MAX = 3_600.0

NAME = re.compile(rf"[a-z][a-z0-9._-]{{0,{NAME_CHARS_MAX - 1}}}")
# `\Z`, not `$`, which would let a name end in a newline and so into a path.
Name = Annotated[str, Meta(pattern=rf"^{NAME.pattern}\Z")]
Label = Annotated[str, Meta(pattern=rf"^[a-z][a-z0-9._-]{{0,{LABEL_CHARS_MAX - 1}}}\Z")]
Confirm = Annotated[str, Meta(max_length=2 * NAME_CHARS_MAX + 1)]
SizeBytes = Annotated[int, Meta(ge=BLOCK_BYTES, le=VOLUME_BYTES_MAX, multiple_of=BLOCK_BYTES)]
Rows = Annotated[int, Meta(ge=1, le=ROWS_MAX)]
WaitSeconds = Annotated[float, Meta(ge=0, le=WAIT_S_MAX)]
PairMode = Literal["async", "sync", "sync-strict"]
Compress = Literal["none", "zstd"]
ResyncSource = Literal["local", "remote"]


class BaseCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="name"):
    """Base of every command; `name` is its tag."""


def check_name(text: str, what: str) -> str:
    """A group, volume or peer name as it is. Raises UsageError. `what` is the noun for the message."""
    if NAME.fullmatch(text):
        return text
    rule = f"must match [a-z][a-z0-9._-]* with at most {NAME_CHARS_MAX} characters"
    raise UsageError(f"{what} name {text!r} {rule}", subject=text)
