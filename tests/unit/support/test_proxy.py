"""The proxy that breaks links does to bytes what it says, seen by two plain sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy, Way

TIMEOUT_S = 10.0
NOTHING_COMES_S = 0.2


class Ends:
    """A dialler and the far end that its newest connection reaches."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(TIMEOUT_S)
        self.proxy = Proxy(self._server.getsockname()[1])
        self._open: list[socket.socket] = []

    def dial(self) -> socket.socket:
        host, port = self.proxy.endpoint.removeprefix("tcp://").split(":")
        near = socket.create_connection((host, int(port)), TIMEOUT_S)
        self._open.append(near)
        return near

    def connect(self) -> tuple[socket.socket, socket.socket]:
        near = self.dial()
        far, _ = self._server.accept()
        far.settimeout(TIMEOUT_S)
        self._open.append(far)
        return near, far

    def close(self) -> None:
        self.proxy.close()
        for each in (*self._open, self._server):
            each.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    yield both
    both.close()


def nothing_comes(end: socket.socket) -> bool:
    end.settimeout(NOTHING_COMES_S)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(TIMEOUT_S)
    return False


def test_bytes_pass_both_ways_and_are_counted(ends: Ends) -> None:
    near, far = ends.connect()
    near.sendall(b"ab")
    assert far.recv(9) == b"ab"
    far.sendall(b"xyz")
    assert near.recv(9) == b"xyz"
    near.close()
    assert far.recv(9) == b""
    assert (ends.proxy.delivered_bytes(Way.FORWARD), ends.proxy.delivered_bytes(Way.BACK)) == (2, 3)


def test_a_cut_resets_what_is_and_what_comes(ends: Ends) -> None:
    near, far = ends.connect()
    ends.proxy.cut()
    for end in (near, far):
        with pytest.raises(ConnectionResetError):
            end.recv(1)

    def dial_and_read() -> None:
        ends.dial().recv(1)  # the reset may come before the connection is made

    with pytest.raises(ConnectionResetError):
        dial_and_read()
    ends.proxy.heal()
    near, far = ends.connect()
    near.sendall(b"a")
    assert far.recv(9) == b"a"


def test_a_black_hole_one_way_swallows_that_way_only_and_the_end_too(ends: Ends) -> None:
    near, far = ends.connect()
    ends.proxy.blackhole(Way.FORWARD)
    near.sendall(b"lost")
    assert nothing_comes(far)
    far.sendall(b"x")
    assert near.recv(9) == b"x"
    near.close()
    assert nothing_comes(far)
    ends.proxy.heal()
    with pytest.raises(ConnectionResetError):
        far.recv(1)


def test_a_connection_that_lost_nothing_outlives_a_black_hole(ends: Ends) -> None:
    near, far = ends.connect()
    ends.proxy.blackhole()
    ends.proxy.heal()
    near.sendall(b"a")
    assert far.recv(9) == b"a"


def test_a_delay_is_each_ways_and_does_not_bound_throughput(ends: Ends) -> None:
    near, far = ends.connect()
    ends.proxy.delay(0.15)
    began = time.monotonic()
    near.sendall(b"a" * 1000)
    near.sendall(b"b" * 1000)
    got = b""
    while len(got) < 2000:
        got += far.recv(2000)
    far.sendall(b"c")
    assert near.recv(9) == b"c"
    assert got == b"a" * 1000 + b"b" * 1000
    assert 0.3 <= time.monotonic() - began < 5


def test_a_throttle_lets_so_much_pass_a_second(ends: Ends) -> None:
    near, far = ends.connect()
    ends.proxy.throttle(1 << 20)
    began = time.monotonic()
    near.sendall(bytes(512 << 10))
    got = 0
    while got < 512 << 10:
        got += len(far.recv(1 << 20))
    assert 0.4 <= time.monotonic() - began < 5
