"""Several connections to one volume: one order of writes, and a flush that covers them all."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.clients import nbdsh
from tests.support.sites import Site

CONNECT = """
    import random
    rng = random.Random(5)
    size = 8 << 20
    hosts = []
    for _ in range(4):
        host = nbd.NBD()
        host.connect_uri(uri)
        assert host.can_multi_conn()
        hosts.append(host)
"""

WRITE_FLUSH_READ = """
    oracle = bytearray(size)
    for turn in range(500):
        writer, flusher, reader = rng.sample(range(4), 3)
        length = rng.choice([512, 4096, 65536])
        offset = rng.randrange(0, (size - length) // 512 + 1) * 512
        data = rng.randbytes(length)
        hosts[writer].pwrite(data, offset)
        oracle[offset:offset + length] = data
        if turn % 10 == 0:
            hosts[flusher].flush()
        assert hosts[reader].pread(length, offset) == data, turn
    for host in hosts:
        assert host.pread(size, 0) == oracle
    print("same")
"""

ALL_AT_ONCE = """
    oracle = bytearray(size)
    part = size // 4
    for turn in range(40):
        waiting = []
        for number, host in enumerate(hosts):
            for slot in rng.sample(range(part // 4096), 8):
                offset = number * part + slot * 4096
                data = rng.randbytes(4096)
                oracle[offset:offset + 4096] = data
                cookie = host.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset)
                waiting.append((host, cookie))
        for host, cookie in waiting:
            while not host.aio_command_completed(cookie):
                host.poll(-1)
        hosts[turn % 4].flush()
    for host in hosts:
        assert host.pread(size, 0) == oracle
    print("same")
"""


PARTS_OF_BLOCKS = """
    hosts += [nbd.NBD() for _ in range(28)]
    for host in hosts[4:]:
        host.connect_uri(uri)
    oracle = bytearray(size)
    for turn in range(60):
        waiting = []
        for number, host in enumerate(hosts):
            for block in rng.sample(range(64), 2):  # each host has one sector of every block, for four blocks
                offset = (block * 4 + number // 8) * 4096 + number % 8 * 512
                data = rng.randbytes(512)
                oracle[offset:offset + 512] = data
                cookie = host.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset)
                waiting.append((host, cookie))
        for host, cookie in waiting:
            while not host.aio_command_completed(cookie):
                host.poll(-1)
    hosts[0].flush()
    for host in hosts:
        assert host.pread(size, 0) == oracle
    import hashlib
    print(hashlib.sha256(oracle).hexdigest())
"""


def test_write_on_one_flush_on_another_read_on_a_third(site: Site, tool: Callable[[str], str]) -> None:
    tool("nbdsh")
    uri = site.create_volume("g/v", "8M")
    assert nbdsh(uri, CONNECT, WRITE_FLUSH_READ) == "same\n"


def test_four_connections_at_once(site: Site, tool: Callable[[str], str]) -> None:
    tool("nbdsh")
    uri = site.create_volume("g/v", "8M")
    assert nbdsh(uri, CONNECT, ALL_AT_ONCE) == "same\n"


def test_thirty_two_connections_that_write_parts_of_the_same_blocks(
    site: Site, tool: Callable[[str], str]
) -> None:
    tool("nbdsh")
    uri = site.create_volume("g/v", "8M")
    written = nbdsh(uri, CONNECT, PARTS_OF_BLOCKS)
    site.kill()
    site.start()
    read = nbdsh(uri, "import hashlib", "print(hashlib.sha256(h.pread(h.get_size(), 0)).hexdigest())")
    assert read == written


def test_flushed_by_another_connection_survives_kill(site: Site, tool: Callable[[str], str]) -> None:
    """A flush answered on one connection covers what was acknowledged on the others."""
    tool("nbdsh")
    uri = site.create_volume("g/v", "8M")
    script = """
        for number, host in enumerate(hosts[:3]):
            host.pwrite(bytes([number + 1]) * 4096, number * 4096)
        hosts[3].flush()
    """
    nbdsh(uri, CONNECT, script)
    site.kill()
    site.start()
    check = "assert h.pread(12288, 0) == b'\\x01' * 4096 + b'\\x02' * 4096 + b'\\x03' * 4096; print('same')"
    assert nbdsh(uri, check) == "same\n"
