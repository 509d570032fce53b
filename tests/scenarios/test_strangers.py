"""C10: who has no key connects to the replication port as often as they like; hosts and peers go on."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import pytest

from console.demo.host import Host
from protocol.limits import REPLICATION_STRANGERS_MAX
from tests.support.pairs import resident_bytes
from tests.support.sites import Site

MIB = 1 << 20
BLOCK = 4096
# ZMTP 3.0 greeting of a CURVE client, then the header of a command of almost 4 MiB (RFC 23, "Framing").
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31)
LONG_COMMAND = b"\x06" + (4 * MIB).to_bytes(8, "big")
# Each may hold what it sent, and libzmq's buffer of it.
MEMORY_MAX = 64 * MIB


def descriptors(site: Site) -> int:
    return len(os.listdir(f"/proc/{site.pid}/fd"))


@contextlib.contextmanager
def strangers(port: int, count: int, *pieces: bytes) -> Iterator[list[socket.socket]]:
    """So many connections, each of which has sent as much of the pieces as was taken."""
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), 10)
            made.append(connection)
            connection.settimeout(0.2)
            with contextlib.suppress(OSError):
                for piece in pieces:
                    connection.sendall(piece)
        yield made
    finally:
        for connection in made:
            connection.close()


def check_served(a: Site, b: Site, letter: bytes) -> float:
    """A host writes and flushes, in the mode in which that needs the peer; the longest of ten waits."""
    longest = 0.0
    with Host(a.nbd_socket, "g/v") as host:
        for number in range(10):
            began = time.monotonic()
            host.write(number * BLOCK, letter * BLOCK)
            host.flush()
            longest = max(longest, time.monotonic() - began)
        assert host.read(0, BLOCK) == letter * BLOCK
    assert b.json("status")["groups"][0]["state"] == "paired"
    return longest


@pytest.fixture
def strict(pair: tuple[Site, Site]) -> tuple[Site, Site]:
    a, b = pair
    a.create_volume("g/v", "16M")
    a.farshore("pair", "create", "g", "--with", "b", "--mode", "sync-strict")
    for site in (a, b):  # the other end is told a heartbeat later
        site.farshore("wait", "g", "--state", "paired", "--timeout", "60")
    return a, b


@pytest.mark.slow
@pytest.mark.parametrize("which", ["primary", "secondary"])
def test_a_greeting_and_4_mib_of_each_of_100(which: str, strict: tuple[Site, Site]) -> None:
    a, b = strict
    target = a if which == "primary" else b
    check_served(a, b, b"a")
    before = resident_bytes(target.pid)
    with strangers(target.replication_port, 100, GREETING, LONG_COMMAND, bytes(4 * MIB - 64)):
        grown = resident_bytes(target.pid) - before
        longest = check_served(a, b, b"b")
    print(f"{which}: {grown / MIB:.0f} MiB more; the longest of ten flushed writes {longest * 1e3:.0f} ms")
    assert grown <= MEMORY_MAX


@pytest.mark.slow
def test_idle_ones_up_to_the_limit_of_descriptors(strict: tuple[Site, Site]) -> None:
    a, b = strict
    a.restart_limited(2048)
    a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
    before = descriptors(a)
    with strangers(a.replication_port, 3000) as made:
        assert len(made) == 3000
        # More descriptors are needed for this: a group has files, a process, a connection.
        check_served(a, b, b"c")
        a.create_volume("h/v", "16M")
        held = descriptors(a) - before
        check_served(a, b, b"d")
    print(f"{held} descriptors more, of 3,000 strangers and a new group")
    assert held <= REPLICATION_STRANGERS_MAX + 64
