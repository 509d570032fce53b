"""What may be asked of whoever writes a group's index: the shape of a request, and of the one who answers.

A request is a row whose first element is its kind, the Struct's tag; its fields' types are its codec
(protocol.wire). Each kind stands beside the work that it asks for (`engine.index.checkpoint`, …), but those
for a base in `engine.index.base_requests`; `engine.index.indexer` lists them all. One runs at a time. Those
that are `URGENT` go before the others: hosts wait for a checkpoint, nobody waits for a truncation.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Protocol, Self

from protocol.errors import FarshoreError
from protocol.rows import pack_row
from protocol.wire import WireDecoder, WireRow


class IndexRequest(WireRow, frozen=True, kw_only=True):
    """One piece of work on the index."""

    URGENT: ClassVar[bool] = False

    @classmethod
    def kind(cls) -> str:
        """First element of its row."""
        return str(cls.__struct_config__.tag)

    def to_row(self) -> tuple[Any, ...]:
        """Its fields, without the kind."""
        return super().to_row()[1:]

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """The request with these fields. RemoteProtocolError if they are anything else."""
        found: Self = _decoder(cls).convert((cls.kind(), *row))
        return found


@cache
def _decoder(kind: type[Any]) -> WireDecoder[Any]:
    return WireDecoder(kind)


class Unanswered(FarshoreError):
    """Who was at it ended: whether it was carried out, only the index can tell."""


class IndexerDone(Protocol):
    """Told when a request ended: `error` is None, or says why nothing was changed; after `Unanswered` it may
    have been all the same. `figures` are what its work counted, as its module says; empty after an error."""

    def __call__(self, error: Exception | None, figures: tuple[int, ...], /) -> None: ...


class Indexer(Protocol):
    """Whoever works on the index away from the hosts' way: a child process, or the simulator."""

    def start(self, request: IndexRequest, done: IndexerDone) -> None:
        """Carry out `request` when its turn comes; call `done` once, on the caller's loop."""


def encode_request(request: IndexRequest) -> bytes:
    """A request as a row, kind first."""
    return pack_row((request.kind(), *request.to_row()))
