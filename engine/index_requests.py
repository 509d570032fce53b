"""What may be asked of whoever writes a group's index: the shape of a request, and of the one who answers.

A request is a row whose first element is its kind. Each kind is a frozen dataclass beside the work that it
asks for (`engine.checkpoint`, …); `engine.indexer` lists them all. One runs at a time. Those that are
`urgent` go before the others: hosts wait for a checkpoint, nobody waits for a fold.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from engine.timelines import Timeline
from protocol.rows import check_row, pack_row


class IndexRequest(Protocol):
    """One piece of work on the index."""

    KIND: ClassVar[str]
    URGENT: ClassVar[bool]

    def to_row(self) -> tuple[object, ...]:
        """Its fields, scalars and nested arrays only."""


class IndexerDone(Protocol):
    """Told when a request ended: `error` is None, or says why nothing was changed. `figures` are what its
    work counted, as its module says; empty after an error."""

    def __call__(self, error: Exception | None, figures: tuple[int, ...], /) -> None: ...


class Indexer(Protocol):
    """Whoever works on the index away from the hosts' way: a child process, or the simulator."""

    def start(self, request: IndexRequest, done: IndexerDone) -> None:
        """Carry out `request` when its turn comes; call `done` once, on the caller's loop."""


def encode_request(request: IndexRequest) -> bytes:
    """A request as a row, kind first."""
    return pack_row((request.KIND, *request.to_row()))


def timelines_to_rows(timelines: tuple[Timeline, ...]) -> tuple[tuple[object, ...], ...]:
    """Timelines as rows within a request."""
    return tuple((t.id, t.parent, t.fork, t.generation, t.writer, t.lane) for t in timelines)


def timelines_from_rows(rows: tuple[Any, ...]) -> tuple[Timeline, ...]:
    """The timelines in such rows. RemoteProtocolError if they are anything else."""
    found = []
    for row in rows:
        timeline, parent, fork, generation, writer, lane = check_row(row, int, int, int, int, str, int)
        found.append(
            Timeline(id=timeline, parent=parent, fork=fork, generation=generation, writer=writer, lane=lane)
        )
    return tuple(found)
