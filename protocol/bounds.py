"""Bounds of single values, as types: whoever declares a field with one of these refuses everything else.

They hold where something is decoded: from a peer, from the journal, from a row of a store. Inside, nobody
asks again. Numbers of 64 bits without an upper bound here are bounded by msgpack, which has no larger ones.

Pure: no I/O.
"""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from protocol.limits import (
    BLOCKS_MAX,
    DIGEST_BYTES,
    FRAME_UTC_NS_MAX,
    GENERATION_MAX,
    LEASE_NAME_BYTES_MAX,
    LOCK_S_MAX,
    NAME_CHARS_MAX,
    TEXT_CHARS_MAX,
    VOLUME_BYTES_MAX,
)
from protocol.positions import POSITION_MAX
from protocol.schedule_limits import CRON_LINE_CHARS_MAX

# -- places

Position = Annotated[int, Meta(ge=0, le=POSITION_MAX)]
TimelineId = Annotated[int, Meta(ge=1)]
AnyTimeline = Annotated[int, Meta(ge=0)]  # 0: none
VolumeId = Position  # that of its `VolumeCreated`
CopyId = Annotated[int, Meta(ge=0)]
Lane = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
Generation = Annotated[int, Meta(ge=1, le=GENERATION_MAX)]
AnyGeneration = Annotated[int, Meta(ge=0, le=GENERATION_MAX)]  # 0: there is no timeline
Block = Annotated[int, Meta(ge=0, lt=BLOCKS_MAX)]
BlockEnd = Annotated[int, Meta(ge=0, le=BLOCKS_MAX)]
BlockCount = Annotated[int, Meta(ge=1, le=BLOCKS_MAX)]
SizeBytes = Annotated[int, Meta(ge=1, le=VOLUME_BYTES_MAX)]  # of a volume
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
MsOrUnknown = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]  # -1: unknown
UtcNs = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]  # to the year 2262
FrameUtcNs = Annotated[int, Meta(ge=0, le=FRAME_UTC_NS_MAX)]  # of a frame, as a peer says it
LockNs = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]  # of engine.retention.lock_clock
LockSeconds = Annotated[int, Meta(ge=1, le=LOCK_S_MAX)]
Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
DigestOrNone = Annotated[bytes, Meta(max_length=DIGEST_BYTES)]  # empty: not known
Session = Annotated[int, Meta(ge=1, le=POSITION_MAX)]

# -- words

NAME = re.compile(rf"[a-z][a-z0-9._-]{{0,{NAME_CHARS_MAX - 1}}}")
# `\Z`, not `$`, which would let a name end in a newline and so into a path.
Name = Annotated[str, Meta(pattern=rf"^{NAME.pattern}\Z")]  # of a group, a volume, a site, a hook
GroupId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
GroupIdOrNone = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{16})?\Z")]  # empty: a journal without its site
# A site's id is 16 hex digits; tests and older tools use words.
SiteId = Annotated[str, Meta(pattern=rf"^[a-z0-9][a-z0-9._-]{{0,{NAME_CHARS_MAX - 1}}}\Z")]
Word = Annotated[str, Meta(max_length=NAME_CHARS_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
NameOrNone = Annotated[str, Meta(pattern=rf"^(?:{NAME.pattern})?\Z")]
LabelOrNone = NameOrNone  # the same letters, the same length
# Five fields apart by one space, and a name of the tz database; what they mean is checked where they are used
# (engine.copies.cron_lines, engine.ports.time_zones).
_CRON_FIELD = r"[0-9A-Za-z*,/#-]+"
CronLineOrNone = Annotated[
    str, Meta(pattern=rf"^(?:{_CRON_FIELD}(?: {_CRON_FIELD}){{4}})?\Z", max_length=CRON_LINE_CHARS_MAX)
]
_ZONE = r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*"
ZoneName = Annotated[str, Meta(pattern=rf"^{_ZONE}\Z", max_length=NAME_CHARS_MAX)]
ZoneNameOrNone = Annotated[str, Meta(pattern=rf"^(?:{_ZONE})?\Z", max_length=NAME_CHARS_MAX)]
# Bounded in characters here, and in bytes by `check_lease_name`.
LeaseName = Annotated[str, Meta(min_length=1, max_length=LEASE_NAME_BYTES_MAX)]


def check_lease_name(name: str) -> None:
    """ValueError unless a lease's name fits the key under which it is kept, whatever its letters."""
    if len(name.encode()) > LEASE_NAME_BYTES_MAX:
        raise ValueError(f"a lease's name has at most {LEASE_NAME_BYTES_MAX} bytes")
