"""What hosts can cost a running daemon: memory, time, connections, descriptors. The figures are printed.

The bounds are in protocol/limits.py. tests/unit/site_primary/nbd/test_host_budget.py does it without sockets.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.limits import NBD_CONNECTIONS_PER_HOST, NBD_OPTION_REPLY_BYTES_MAX
from protocol.nbd.client import encode_option
from protocol.nbd.constants import Command, Option
from site_primary.nbd.server import REFUSED_AT_ONCE_MAX
from tests.support.raw_host import Asked, RawHost
from tests.support.sites import Site, free_port, running_sites

MIB = 1 << 20
LARGEST = 32 * MIB
ANSWERED_IN_S = 0.1


@pytest.fixture
def hosts() -> Iterator[contextlib.ExitStack]:
    """Connections of a test, closed at its end."""
    with contextlib.ExitStack() as stack:
        yield stack


def connect(site: Site, hosts: contextlib.ExitStack, export: str = "g/v") -> RawHost:
    return hosts.enter_context(RawHost.unix(site.nbd_socket, export))


def memory_bytes(site: Site) -> int:
    """Anonymous memory of the daemon."""
    lines = Path(f"/proc/{site.pid}/status").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith("RssAnon"))
    return int(found.split()[1]) << 10


def processor_s(site: Site) -> float:
    """Processor time of the daemon."""
    fields = Path(f"/proc/{site.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def settled(site: Site) -> None:
    """The daemon has done all that there is to do for what was sent: it uses no processor any more."""
    before = -1.0
    while (now := processor_s(site)) != before:
        before = now
        time.sleep(0.2)


def slowest_answer_s(host: RawHost, count: int = 50) -> float:
    slowest = 0.0
    for _ in range(count):
        began = time.monotonic()
        assert host.ask(Command.READ, 0, 512).error == 0
        slowest = max(slowest, time.monotonic() - began)
    return slowest


@pytest.mark.alone
@pytest.mark.parametrize("taken", [False, True])
def test_c8_forty_large_reads(site: Site, hosts: contextlib.ExitStack, taken: bool) -> None:
    """Not taken they cost little memory; taken or not, another host is answered at once."""
    site.create_volume("g/v", "64M")
    large, other = connect(site, hosts), connect(site, hosts)
    for at in range(0, 64, 4):
        other.exchange([Asked(command=Command.WRITE, offset=at * MIB, length=MIB, payload=b"d" * MIB)])
    before = memory_bytes(site)
    for _ in range(40):
        large.socket.sendall(Asked(command=Command.READ, length=LARGEST).encode(1))
    slowest = 0.0
    most = memory_bytes(site)
    taken_bytes = 0
    for _ in range(100):
        slowest = max(slowest, slowest_answer_s(other, 1))
        most = max(most, memory_bytes(site))
        if taken:
            taken_bytes += len(large._some())
    grown = most - before
    print(f"40 READs of 32 MiB, {taken_bytes >> 20} MiB taken: +{grown / MIB:.1f} MiB, "
          f"another host waited {slowest * 1000:.1f} ms at most")  # fmt: skip
    assert grown <= 16 * MIB
    assert slowest <= ANSWERED_IN_S


@pytest.mark.alone
def test_c9_half_writes(site: Site, hosts: contextlib.ExitStack) -> None:
    """30 hosts stall in the middle of a WRITE of 32 MiB, 300 in one of 1 MiB; others are served."""
    site.create_volume("g/v", "64M")
    other = connect(site, hosts)
    other.ask(Command.WRITE, 0, payload=b"o" * MIB)
    before = memory_bytes(site)
    for count, length, sent in ((30, LARGEST, LARGEST // 2 - 300_000), (300, MIB, 700_000)):
        for _ in range(count):
            host = connect(site, hosts)
            host.socket.sendall(Asked(command=Command.WRITE, length=length, payload=b"h" * sent).encode(1))
        settled(site)
        slowest = slowest_answer_s(other)
        grown = memory_bytes(site) - before
        print(f"{count} half WRITEs of {length >> 20} MiB: +{grown / MIB:.1f} MiB, another host waited "
              f"{slowest * 1000:.1f} ms at most")  # fmt: skip
        # The pool, and a version in the memtable for each block that got into the journal.
        assert grown <= 100 * MIB
        assert slowest <= ANSWERED_IN_S
        assert other.ask(Command.WRITE, 32 * MIB, payload=b"l" * 3 * MIB).error == 0


@pytest.mark.alone
def test_a_thousand_hosts_at_once_are_all_served_and_leave_nothing(site: Site) -> None:
    site.create_volume("g/v", "64M")
    with contextlib.ExitStack() as stack:
        connect(site, stack).ask(Command.WRITE, 0, payload=b"w" * 3 * MIB)
        before = memory_bytes(site)
        began = time.monotonic()
        sockets = []
        for _ in range(1000):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(str(site.nbd_socket))
            sockets.append(one)
        hosts = [RawHost(one, "g/v", structured=False) for one in sockets]
        took_s = time.monotonic() - began
        for host in hosts:
            host.socket.sendall(Asked(command=Command.READ, length=4096).encode(1))
        for host in hosts:
            assert host._exactly(16 + 4096)[16:] == b"w" * 4096
        idle = memory_bytes(site)
        # Half of them write and read large, and all leave.
        for host in hosts[::2]:
            host.exchange([Asked(command=Command.WRITE, length=2 * MIB, payload=b"w" * 2 * MIB)])
            host.exchange([Asked(command=Command.READ, length=2 * MIB)])
        busy = memory_bytes(site)
    settled(site)
    left = memory_bytes(site) - before
    print(f"1,000 hosts at once: served after {took_s:.1f} s, +{(idle - before) / MIB:.1f} MiB idle, "
          f"+{(busy - before) / MIB:.1f} after large requests, +{left / MIB:.1f} when they left")  # fmt: skip
    assert idle - before <= 48 * MIB
    # The memtable holds a version for each of 500 times 512 blocks: 256,000, some 30 MiB.
    assert left <= 64 * MIB


def test_one_address_cannot_take_every_connection(scratch: Path, hosts: contextlib.ExitStack) -> None:
    site = Site(scratch / "a", "a")
    port = free_port()
    unix = site.nbd_socket
    site.init("--nbd", f"unix:{unix}", "--nbd", f"tcp:127.0.0.1:{port}", "--insecure")
    with (site.directory / "site.toml").open("a") as config:
        config.write("nbd_connections_per_host = 3\n")
    site.start()
    try:
        site.create_volume("g/v", "1M")

        def tcp(address: str) -> RawHost:
            connection = socket.socket()
            connection.bind((address, 0))
            connection.connect(("127.0.0.1", port))
            hosts.push(contextlib.closing(connection))
            return RawHost(connection, "g/v")

        greedy = [tcp("127.0.0.2") for _ in range(3)]
        with pytest.raises(AssertionError, match=r"127\.0\.0\.2 has 3 already"):
            tcp("127.0.0.2")
        # Another address, and a user on the unix socket, have parts of their own.
        assert tcp("127.0.0.3").ask(Command.READ, 0, 512).error == 0
        assert connect(site, hosts).ask(Command.READ, 0, 512).error == 0
        # One that leaves makes room for the next.
        greedy[0].exchange([Asked(command=Command.DISC)])
        greedy[0].until_closed()
        assert tcp("127.0.0.2").ask(Command.READ, 0, 512).error == 0
        # On a slow machine the looks of whoever waits for the start are several at once, too.
        clients = [e["client"] for e in site.log() if e["event"] == "nbd.too_many_connections"]
        assert [each.split(":")[0] for each in clients if not each.startswith("pid")] == ["127.0.0.2"]
    finally:
        site.stop()
        site.check_log()


@pytest.mark.alone
def test_strangers_cannot_take_the_last_descriptors(hosts: contextlib.ExitStack) -> None:
    """C10's kind, at the hosts' door: a process of 512 descriptors, strangers that connect and wait."""
    with running_sites("a") as (site,):
        site.create_volume("g/v", "256M")
        site.restart_limited(512)
        host = connect(site, hosts)
        strangers = []
        for _ in range(700):
            stranger = hosts.enter_context(socket.socket(socket.AF_UNIX))
            stranger.connect(str(site.nbd_socket))
            strangers.append(stranger)
        served = sum(1 for stranger in strangers if _greeting(stranger))
        used = len(list(Path(f"/proc/{site.pid}/fd").iterdir()))
        print(f"of 700 strangers {served} were let in, {used} of 512 descriptors in use")
        assert 100 < served < 480
        # Journal segments, a checkpoint, a backup: all of what takes descriptors.
        for at in range(0, 200, 2):
            payload = random.Random(at).randbytes(2 * MIB)
            assert host.ask(Command.WRITE, at * MIB, payload=payload).error == 0
        assert host.ask(Command.FLUSH).error == 0
        site.farshore("backup", "create", "g", "--label", "one")
        assert connect_when_they_left(site, hosts, strangers).ask(Command.READ, 0, 512).error == 0
        assert site.stop() == 0
        site.check_log()


def _greeting(stranger: socket.socket) -> bool:
    stranger.settimeout(20)
    try:
        return bool(stranger.recv(18))
    except ConnectionError:
        return False


def connect_when_they_left(
    site: Site, hosts: contextlib.ExitStack, strangers: list[socket.socket]
) -> RawHost:
    for stranger in strangers:
        stranger.close()
    settled(site)
    return connect(site, hosts)


def test_a_host_that_asks_and_takes_no_answers_in_its_handshake(site: Site) -> None:
    """It is cut off, or not read from; either way it holds next to nothing."""
    site.create_volume("g/v", "1M")
    before = memory_bytes(site)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(str(site.nbd_socket))
            one.setblocking(False)
            one.send(b"\x00\x00\x00\x03")
            with contextlib.suppress(BlockingIOError, ConnectionError):
                for _ in range(2000):
                    one.send(encode_option(Option.LIST) * 32)
        settled(site)
        grown = memory_bytes(site) - before
    print(f"20 hosts that list exports and take no answer: +{grown / MIB:.1f} MiB")
    assert grown <= 20 * NBD_OPTION_REPLY_BYTES_MAX + 8 * MIB


def test_connections_of_one_user_are_bounded(site: Site) -> None:
    site.create_volume("g/v", "1M")
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(NBD_CONNECTIONS_PER_HOST + 50):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(str(site.nbd_socket))
            sockets.append(one)
        # Of those past the bound some are told why, and none is let in.
        assert sum(1 for one in sockets if _greeting(one)) == NBD_CONNECTIONS_PER_HOST + REFUSED_AT_ONCE_MAX
    lines = [entry for entry in site.log() if entry["event"] == "nbd.too_many_connections"]
    assert 0 < len(lines) <= 50
    events = [each for each in site.json("events")["events"] if each["kind"] == "hosts.too_many"]
    assert events
    assert events[0]["level"] == "warning"
