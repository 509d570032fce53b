"""Questions about a group that one site of a pair puts to the other, and their answers.

    HOLD       keep this cut readable for so long          HELD      it is kept; the cut
    RELEASE    it is no longer needed
    FIND       which cut was the newest at this time?
    BLOCKS     these blocks of a volume at a cut           CONTENT   their bytes
    CHANGES    which blocks differ between two cuts?       CHANGED   some of them, and where to ask on
    JOURNAL    frames of a timeline                        FRAMES    as many as one message takes
                                                           NO_ANSWER why not, as an operator's error

They go over a connection of their own, in no session of the replication: either site may ask, whichever
writes, also while the pair is split. Each says by itself which group it is about; `session` is a random
number, only for the answer to be known by.

Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from protocol.compress import Compression
from protocol.errors import RemoteProtocolError
from protocol.events import Row
from protocol.limits import (
    LEASE_NAME_CHARS_MAX,
    LEASE_S_MAX,
    QUESTION_BLOCKS_MAX,
)
from protocol.positions import NO_TIMELINE, Cut
from protocol.rows import check_row, pack_row

QUESTIONS_VERSION = 1


class QuestionKind(IntEnum):
    """First element of a header; the other kinds are in protocol.messages."""

    HOLD = 40
    RELEASE = 41
    FIND = 42
    BLOCKS = 43
    CHANGES = 44
    JOURNAL = 45
    HELD = 50
    CONTENT = 51
    CHANGED = 52
    FRAMES = 53
    NO_ANSWER = 54


class Content(IntEnum):
    """What an answer holds of one block."""

    ZEROES = 0
    BYTES = 1
    DAMAGED = 2


def _pair(cut: Cut) -> tuple[int, int]:
    return (cut.timeline, cut.position)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    session: int
    group: str
    group_id: str

    def _header(self, kind: QuestionKind, *fields: object) -> bytes:
        return pack_row((int(kind), self.session, QUESTIONS_VERSION, self.group, self.group_id, *fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(_Question):
    """Keep `cut` readable for `for_s` seconds under a name, in place of what the asking site held so."""

    name: str
    cut: Cut
    for_s: int

    def encode(self) -> bytes:
        """As a header."""
        return self._header(QuestionKind.HOLD, self.name, *_pair(self.cut), self.for_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(_Question):
    """Let go of what is held under a name; one that is not held is fine."""

    name: str

    def encode(self) -> bytes:
        """As a header."""
        return self._header(QuestionKind.RELEASE, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Find(_Question):
    """The end of the last frame written at or before a time."""

    utc_ns: int

    def encode(self) -> bytes:
        """As a header."""
        return self._header(QuestionKind.FIND, self.utc_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks(_Question):
    """Contents of at most `QUESTION_BLOCKS_MAX` blocks of a volume (id) at a cut."""

    volume: int
    cut: Cut
    blocks: tuple[int, ...]

    def encode(self) -> bytes:
        """As a header."""
        return self._header(QuestionKind.BLOCKS, self.volume, *_pair(self.cut), self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes(_Question):
    """Blocks of a volume (id) from `first` on that may differ between two cuts."""

    volume: int
    before: Cut
    after: Cut
    first: int

    def encode(self) -> bytes:
        """As a header."""
        return self._header(
            QuestionKind.CHANGES, self.volume, *_pair(self.before), *_pair(self.after), self.first
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal(_Question):
    """Frames of a timeline from the boundary `start` up to `end`."""

    timeline: int
    start: int
    end: int

    def encode(self) -> bytes:
        """As a header."""
        return self._header(QuestionKind.JOURNAL, self.timeline, self.start, self.end)


Question = Hold | Release | Find | Blocks | Changes | Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Done: `cut` is held or was found (timeline 0: nothing to name)."""

    session: int
    cut: Cut

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(QuestionKind.HELD), self.session, *_pair(self.cut)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockContents:
    """One `Content` for each block asked for, in order; the payload has the bytes of those with BYTES, end
    to end."""

    session: int
    contents: bytes
    compression: Compression = Compression.NONE

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(QuestionKind.CONTENT), self.session, self.contents, int(self.compression)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The payload is an array of runs, `[first, blocks, first, blocks, …]`, ascending. Every block before
    `next_block` was looked at; `done`: that was all."""

    session: int
    next_block: int
    done: bool
    compression: Compression = Compression.NONE

    def encode(self) -> bytes:
        """As a header."""
        return pack_row(
            (int(QuestionKind.CHANGED), self.session, self.next_block, self.done, int(self.compression))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Frames follow as payload, end to end, at most `FRAME_BYTES_MAX` in all; at least one."""

    session: int
    compression: Compression = Compression.NONE

    def encode(self) -> bytes:
        """As a header."""
        return pack_row((int(QuestionKind.FRAMES), self.session, int(self.compression)))


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """Why there is none; `code` as in protocol.errors."""

    session: int
    code: str
    message: str
    position: str

    def encode(self) -> bytes:
        """As a header."""
        fields = (self.code, self.message, self.position)
        return pack_row((int(QuestionKind.NO_ANSWER), self.session, *fields))


Answer = Held | BlockContents | Changed | Frames | NoAnswer
QuestionMessage = Question | Answer


def decode_question_message(row: Row, session: int) -> QuestionMessage:
    """The question or answer in a header's row; RemoteProtocolError if it is none."""
    if row[0] < QuestionKind.HELD:
        return _question(row, session)
    match row[0]:
        case QuestionKind.HELD:
            _, _, timeline, position = check_row(row, int, int, int, int)
            return Held(session=session, cut=Cut(timeline, position))
        case QuestionKind.CONTENT:
            _, _, contents, compression = check_row(row, int, int, bytes, int)
            if len(contents) > QUESTION_BLOCKS_MAX or not set(contents) <= set(Content):
                raise RemoteProtocolError("contents of blocks are named in a way not known to this version")
            return BlockContents(session=session, contents=contents, compression=_compression(compression))
        case QuestionKind.CHANGED:
            _, _, next_block, done, compression = check_row(row, int, int, int, bool, int)
            return Changed(
                session=session, next_block=next_block, done=done, compression=_compression(compression)
            )
        case QuestionKind.FRAMES:
            _, _, compression = check_row(row, int, int, int)
            return Frames(session=session, compression=_compression(compression))
        case QuestionKind.NO_ANSWER:
            _, _, code, message, position = check_row(row, int, int, str, str, str)
            return NoAnswer(session=session, code=code, message=message, position=position)
        case kind:
            raise RemoteProtocolError(f"message kind {kind!r} is not known to this version")


def _question(row: Row, session: int) -> Question:
    if len(row) < 5 or row[2] != QUESTIONS_VERSION:
        raise RemoteProtocolError(f"the peer asks by another version, not {QUESTIONS_VERSION}")
    group, group_id = check_row(row[3:5], str, str)
    fields = row[5:]
    match row[0]:
        case QuestionKind.HOLD:
            name, timeline, position, for_s = check_row(fields, str, int, int, int)
            if not 0 < for_s <= LEASE_S_MAX or not 0 < len(name) <= LEASE_NAME_CHARS_MAX:
                raise RemoteProtocolError("a cut is held under a short name, and not for ever")
            cut = _cut(timeline, position)
            return Hold(session=session, group=group, group_id=group_id, name=name, cut=cut, for_s=for_s)
        case QuestionKind.RELEASE:
            (name,) = check_row(fields, str)
            return Release(session=session, group=group, group_id=group_id, name=name)
        case QuestionKind.FIND:
            (utc_ns,) = check_row(fields, int)
            return Find(session=session, group=group, group_id=group_id, utc_ns=utc_ns)
        case QuestionKind.BLOCKS:
            volume, timeline, position, blocks = check_row(fields, int, int, int, tuple)
            if len(blocks) > QUESTION_BLOCKS_MAX or any(type(b) is not int or b < 0 for b in blocks):
                raise RemoteProtocolError(f"blocks are asked for by number, at most {QUESTION_BLOCKS_MAX}")
            cut = _cut(timeline, position)
            return Blocks(
                session=session, group=group, group_id=group_id, volume=volume, cut=cut, blocks=blocks
            )
        case QuestionKind.CHANGES:
            volume, *cuts, first = check_row(fields, int, int, int, int, int, int)
            return Changes(
                session=session,
                group=group,
                group_id=group_id,
                volume=volume,
                before=_cut(*cuts[:2]),
                after=_cut(*cuts[2:]),
                first=first,
            )
        case QuestionKind.JOURNAL:
            timeline, start, end = check_row(fields, int, int, int)
            return Journal(
                session=session, group=group, group_id=group_id, timeline=timeline, start=start, end=end
            )
        case kind:
            raise RemoteProtocolError(f"message kind {kind!r} is not known to this version")


def _cut(timeline: int, position: int) -> Cut:
    if timeline == NO_TIMELINE or position < 0:
        raise RemoteProtocolError("a question names cuts of a timeline")
    return Cut(timeline, position)


def _compression(value: int) -> Compression:
    try:
        return Compression(value)
    except ValueError as error:
        raise RemoteProtocolError(f"compression {value!r} is not known to this version") from error
