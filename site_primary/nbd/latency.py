"""How long hosts wait, in fixed buckets: counted by the turn and by the batch, never by the request.

`served`   from a turn's begin until what it answers is handed to the socket: reads, and writes in the journal
`durable`  FLUSH and FUA: from the turn on until the journal is durable (and the peer's, in synchronous modes)
`peer`     writes of a synchronous mode, until the peer has them

Each request of a turn counts as long as the turn. Pure.
"""

from __future__ import annotations

from bisect import bisect_left

# Upper ends in seconds; what is longer is in one more.
BUCKETS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class Histogram:
    """Counts by bucket, and the sum of all."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, took_s: float, count: int) -> None:
        """So many requests took so long."""
        self.counts[bisect_left(BUCKETS_S, took_s)] += count
        self.sum_s += took_s * count


class HostLatency:
    """Of one volume's hosts, since its export was first opened."""

    __slots__ = ("durable", "peer", "served")

    def __init__(self) -> None:
        self.served, self.durable, self.peer = Histogram(), Histogram(), Histogram()
