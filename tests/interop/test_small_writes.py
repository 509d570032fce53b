"""Writes smaller than a block, compared with a plain byte array after every burst (through nbdsh)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.clients import nbdsh
from tests.support.sites import Site

RANDOM_SECTORS = """
    import random
    rng = random.Random({seed})
    size = 1 << 20
    oracle = bytearray(size)
    for turn in range(2000):
        sectors = rng.choice([1, 1, 1, 2, 3, 5, 8, 9, 17])
        offset = rng.randrange(0, size // 512 - sectors + 1) * 512
        length = sectors * 512
        kind = rng.random()
        if kind < 0.7:
            data = rng.randbytes(length)
            h.pwrite(data, offset, nbd.CMD_FLAG_FUA if rng.random() < 0.05 else 0)
            oracle[offset:offset + length] = data
        elif kind < 0.8:
            h.zero(length, offset, nbd.CMD_FLAG_NO_HOLE if rng.random() < 0.5 else 0)
            oracle[offset:offset + length] = bytes(length)
        else:
            assert h.pread(length, offset) == oracle[offset:offset + length], (turn, offset, length)
    assert h.pread(size, 0) == oracle
    h.flush()
    h.shutdown()
    again = nbd.NBD()
    again.connect_uri(uri)
    assert again.pread(size, 0) == oracle
    print("same")
"""

SECTORS_OF_ONE_BLOCK_IN_FLIGHT = """
    import random
    rng = random.Random(11)
    block = bytearray(4096)
    for turn in range(300):
        waiting = []
        for sector in rng.sample(range(8), rng.randrange(1, 9)):
            data = rng.randbytes(512)
            block[sector * 512:(sector + 1) * 512] = data
            waiting.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), 8192 + sector * 512))
        while waiting:
            h.poll(-1)
            waiting = [cookie for cookie in waiting if not h.aio_command_completed(cookie)]
        assert h.pread(4096, 8192) == block, turn
    assert h.pread(8192, 0) == bytes(8192)
    print("same")
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_sectors_equal_the_oracle(site: Site, tool: Callable[[str], str], seed: int) -> None:
    tool("nbdsh")
    uri = site.create_volume("g/v", "1M")
    assert nbdsh(uri, RANDOM_SECTORS.format(seed=seed)) == "same\n"


def test_sectors_of_one_block_in_flight_together(site: Site, tool: Callable[[str], str]) -> None:
    """Each merges into the block as the one before left it, though all arrive in one batch."""
    tool("nbdsh")
    uri = site.create_volume("g/v", "1M")
    assert nbdsh(uri, SECTORS_OF_ONE_BLOCK_IN_FLIGHT) == "same\n"
