"""Requests too large to be held: a READ is answered, and a WRITE taken, piece by piece.

A READ's pieces are chunks of their own where the client knows structured replies, so that a later one can
still fail in words. Where it asked for one chunk (DF), the rest of a chunk that fails is zeroes, and the
error follows. In a simple reply nothing can follow: the connection must be closed.

Source: proto.md, NBD_CMD_READ ("Simple replies", "Structured replies").
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.ports.disk import Buffer
from protocol.nbd.replies import done_chunk, error_chunk, error_reply, offset_data_header, simple_reply


@dataclass(slots=True, kw_only=True)
class LargeWrite:
    """A WRITE of which `left` bytes, for `offset` and on, are still to come or to be taken."""

    cookie: int
    forced: bool  # FUA
    offset: int
    left: int


class LargeRead:
    """A READ of which `left` bytes, from `offset` on, are still to be sent."""

    __slots__ = ("_begun", "_error", "_one_chunk", "_structured", "cookie", "left", "offset")

    def __init__(self, cookie: int, offset: int, length: int, *, structured: bool, one_chunk: bool) -> None:
        self.cookie = cookie
        self.offset = offset
        self.left = length
        self._structured = structured
        self._one_chunk = one_chunk
        self._begun = False
        self._error = b""  # how the reply ends, where the rest of a chunk is padding

    @property
    def failed(self) -> bool:
        """The rest is to be zeroes."""
        return bool(self._error)

    def take(self, data: bytes) -> list[Buffer]:
        """What to send for the next bytes, at least one."""
        begun, self._begun = self._begun, True
        offset, whole = self.offset, self.left
        self.offset += len(data)
        self.left -= len(data)
        if not self._structured:
            return [data] if begun else [simple_reply(self.cookie), data]
        if not self._one_chunk:
            return [offset_data_header(self.cookie, offset, len(data), done=not self.left), data]
        sent: list[Buffer] = [data]
        if not begun:
            sent.insert(0, offset_data_header(self.cookie, offset, whole, done=False))
        if not self.left:
            sent.append(self._error or done_chunk(self.cookie))
        return sent

    def fail(self, error: int, message: str) -> bytes | None:
        """The next bytes cannot be read: what to send now, after which nothing or padding (`failed`) is left.
        None: the protocol has no word for it, close the connection."""
        if self._begun and not self._structured:
            return None
        if self._begun and self._one_chunk:
            self._error = error_chunk(self.cookie, error, message)
            return b""
        self.left = 0
        return error_reply(self.cookie, error, message, structured=self._structured)
