"""More pairs of two sites than connections between them: each has its own session, order and promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.demo.host import Host
from protocol.limits import PEER_LINKS_MAX
from tests.support.sites import Site

GROUPS = PEER_LINKS_MAX + 6
ASKING = 2  # who asks the other site, what is new there say, does so by a connection of its own
BLOCKS = 8
BLOCK_BYTES = 4096
ESTABLISHED = "01"


def connections_to(site: Site) -> int:
    """Of its peers to its replication port (proc_net_tcp(5))."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{site.replication_port:04X}"
    return sum(1 for row in rows if row[1].endswith(port) and row[3] == ESTABLISHED)


def written(name: str, turn: int, block: int) -> bytes:
    return f"{name} {turn} {block} ".encode().ljust(BLOCK_BYTES, b".")


def write_all(site: Site, names: list[str], turn: int) -> None:
    """To every group at once; acknowledged."""
    hosts = {name: Host(site.nbd_socket, f"{name}/v") for name in names}
    for block in range(BLOCKS):
        for name, host in hosts.items():
            host.submit_write(block * BLOCK_BYTES, written(name, turn, block))
    for host in hosts.values():
        assert [host.take_reply()[1] for _ in range(BLOCKS)] == [0] * BLOCKS
        host.flush()
        host.close()


def check_all(site: Site, names: list[str], turn: int) -> None:
    """What a site holds last."""
    for name in names:
        head = site.json("journal", "show", name)["head"]["text"]
        with Host(site.nbd_socket, f"{name}/v@{head}") as host:
            for block in range(BLOCKS):
                assert host.read(block * BLOCK_BYTES, BLOCK_BYTES) == written(name, turn, block), name


def until_paired(site: Site, names: list[str]) -> None:
    for name in names:
        site.farshore("wait", name, "--state", "paired", "--timeout", "120")


@pytest.mark.slow
def test_pairs_share_connections_and_lose_nothing(pair: tuple[Site, Site]) -> None:
    a, b = pair
    names = [f"g{number:02}" for number in range(GROUPS)]
    for number, name in enumerate(names):
        a.create_volume(f"{name}/v", "1M")
        a.farshore("pair", "create", name, "--with", "b", "--mode", "sync" if number % 2 else "async")
    until_paired(a, names)
    assert connections_to(b) <= PEER_LINKS_MAX + ASKING
    write_all(a, names, 1)
    a.kill()
    a.start()
    until_paired(a, names)
    check_all(a, names, 1)
    b.kill()
    write_all(a, names[::2], 2)  # those that need not wait for the peer
    b.start()
    until_paired(a, names)
    write_all(a, names, 3)
    assert connections_to(b) <= PEER_LINKS_MAX + ASKING
    # A pair that parts leaves the others alone.
    a.farshore("pair", "split", names[0])
    write_all(a, names, 4)
    for name in names[1:]:
        a.farshore("wait", name, "--timeout", "60")
    check_all(b, names[1:], 4)
    check_all(b, names[:1], 3)
    a.farshore("pair", "resync", names[0])
    until_paired(a, names)
    a.farshore("wait", names[0], "--timeout", "60")
    check_all(b, names[:1], 4)
    for name in names:
        a.farshore("verify", name)
        b.farshore("verify", name)
