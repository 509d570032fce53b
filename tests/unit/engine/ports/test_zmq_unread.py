"""What is counted of a peer's unread messages, and how much looking it costs.

Over inproc nothing leaves the queue before it is read.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from engine.ports.zmq_transport import Unread
from protocol.limits import PEER_UNREAD_BYTES_END, PEER_UNREAD_PART_BYTES

REFUSAL = bytes(200)
REFUSAL_COST = len(REFUSAL) + PEER_UNREAD_PART_BYTES
PATIENCE_S = 10.0


class Line:
    """A ROUTER socket, connections to it by name, and what is unread in them."""

    def __init__(self) -> None:
        self.unread = Unread()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = self._context.socket(zmq.ROUTER)
        self.router.sndhwm = 0
        self.router.bind("inproc://line")
        self._dealers: list[zmq.Socket[bytes]] = []  # one that nobody holds would be closed

    def connect(self, name: bytes) -> zmq.Socket[bytes]:
        dealer = self._context.socket(zmq.DEALER)
        dealer.routing_id = name
        dealer.rcvhwm = 0
        dealer.rcvtimeo = int(PATIENCE_S * 1000)
        dealer.connect("inproc://line")
        dealer.send(b"here")
        self._dealers.append(dealer)
        assert self.router.recv_multipart() == [name, b"here"]
        return dealer

    def send(self, name: bytes, header: bytes = REFUSAL, payload: bytes | None = None) -> None:
        self.router.send(name, zmq.SNDMORE)
        self.unread.send(self.router, name, header, payload)

    def take(self, name: bytes, dealer: zmq.Socket[bytes], count: int) -> None:
        """Read so many; returns once the last is known to have gone."""
        trackers = [tracker for tracker, _ in self.unread._queues[name]]
        for _ in range(count):
            dealer.recv_multipart()
        trackers[count - 1].wait(PATIENCE_S)

    def close(self) -> None:
        self._context.destroy(0)


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def test_each_part_counts_until_it_is_taken(line: Line) -> None:
    dealer = line.connect(b"one")
    line.send(b"one")
    line.send(b"one", b"h" * 50, b"p" * 1000)
    line.send(b"one")
    assert line.unread.total_bytes == 2 * REFUSAL_COST + 1050 + 2 * PEER_UNREAD_PART_BYTES
    line.take(b"one", dealer, 1)
    assert line.unread.total_bytes == REFUSAL_COST + 1050 + 2 * PEER_UNREAD_PART_BYTES
    for _ in range(2):
        dealer.recv_multipart()
    line.unread._queues[b"one"][-1][0].wait(PATIENCE_S)
    assert line.unread.total_bytes == 0


def test_short_messages_reach_the_bound_by_what_they_cost(line: Line) -> None:
    line.connect(b"one")
    most = PEER_UNREAD_BYTES_END // PEER_UNREAD_PART_BYTES
    sent = 0
    while line.unread.has_room(len(REFUSAL)) and sent <= most:
        line.send(b"one")
        sent += 1
    assert sent * REFUSAL_COST >= PEER_UNREAD_BYTES_END - REFUSAL_COST
    assert sent <= most


def test_a_send_looks_at_the_first_of_the_queue_alone(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    done: property = vars(zmq.MessageTracker)["done"]

    def counted(tracker: zmq.MessageTracker) -> bool:
        nonlocal looks
        looks += 1
        return bool(done.__get__(tracker))

    monkeypatch.setattr(zmq.MessageTracker, "done", property(counted))
    line.connect(b"one")
    for _ in range(500):
        assert line.unread.has_room(len(REFUSAL))
        line.send(b"one")
    assert looks <= 500
    looks = 0
    assert line.unread.total_bytes == 500 * REFUSAL_COST
    assert looks == 1


def test_a_connection_that_reads_nothing_holds_up_no_count_of_the_others(line: Line) -> None:
    line.connect(b"mute")
    dealer = line.connect(b"reads")
    line.send(b"mute")
    for _ in range(100):
        line.send(b"reads")
    line.take(b"reads", dealer, 100)
    assert line.unread.total_bytes == REFUSAL_COST
    assert line.unread.has_room(PEER_UNREAD_BYTES_END - REFUSAL_COST)
    assert not line.unread.has_room(PEER_UNREAD_BYTES_END)
