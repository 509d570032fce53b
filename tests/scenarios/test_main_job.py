"""The main job on two sites: mirror, back up under writes, read the past, restore, undo; against an oracle.

host ── NBD ── site a ── ZeroMQ + CURVE ── site b
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from console.demo.host import Host
from tests.scenarios.numbered_writes import BLOCK_BYTES, NumberedWriter, newest_number
from tests.support.clients import succeed
from tests.support.sites import Site

MIB = 1 << 20
SIZE_BYTES = 64 * MIB
BLOCKS = SIZE_BYTES // BLOCK_BYTES
LATER_WRITES = 10_000


def mirrored(pair: tuple[Site, Site], *volumes: str) -> tuple[Site, Site]:
    """Volumes of 64 MiB in group `g` at a, mirrored to b, paired."""
    a, b = pair
    for volume in volumes:
        a.create_volume(volume, "64M")
    a.farshore("pair", "create", "g", "--with", "b", "--mode", "async")
    a.farshore("wait", "g", "--state", "paired", "--timeout", "30")
    return a, b


def overwrite(site: Site, volume: str, image: bytearray, count: int, *, seed: int) -> None:
    """`count` random writes of whole sectors, to the volume and to the oracle."""
    rng = random.Random(seed)
    sizes = (512, 4096, 4096, 4096, 8192, 65536)

    def writes() -> object:
        for _ in range(count):
            length = rng.choice(sizes)
            offset = rng.randrange(0, len(image) - length + 1, 512)
            data = rng.randbytes(length)
            image[offset : offset + length] = data
            yield offset, data

    with Host(site.nbd_socket, volume) as host:
        host.write_all(writes())  # type: ignore[arg-type]


class Reader:
    """Reads exports with nbdcopy, as a user would."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._count = 0

    def file(self, site: Site, export: str) -> Path:
        """The export copied to a new file."""
        self._count += 1
        target = self._directory / f"{self._count}.img"
        succeed(self._program, site.uri(export), target)
        return target

    def bytes(self, site: Site, export: str) -> bytes:
        """The export's content."""
        return self.file(site, export).read_bytes()


@pytest.fixture
def read(scratch: Path, tool: Callable[[str], str]) -> Reader:
    """nbdcopy."""
    return Reader(tool("nbdcopy"), scratch)


@pytest.mark.slow
def test_volume(pair: tuple[Site, Site], read: Reader) -> None:
    a, b = mirrored(pair, "g/v")

    # A backup in the middle of writes: it must hold every write up to one moment, and none after it.
    with NumberedWriter(a, ["g/v"], BLOCKS, seed=1) as writer:
        writer.wait_for(2_000)
        acknowledged = writer.acknowledged
        backup = a.json("backup", "create", "g", "--label", "before")
        sent = writer.sent
        writer.wait_for(500)
    assert backup["state"] == {"a": "available", "b": "available"}
    held = newest_number(read.file(a, "g/v@before"))
    assert acknowledged <= held <= sent
    at_backup = writer.image("g/v", held)
    assert read.bytes(a, "g/v@before") == at_backup

    # The past stays what it was, at both sites, whatever is written later.
    live = bytearray(writer.image("g/v", writer.acknowledged))
    overwrite(a, "g/v", live, LATER_WRITES, seed=2)
    reached = a.json("wait", "g", "--timeout", "60")
    assert read.bytes(a, "g/v@before") == at_backup
    assert read.bytes(b, "g/v@before") == at_backup
    assert read.bytes(a, "g/v") == live
    assert read.bytes(b, f"g/v@{reached['position']}") == live

    # One event turns the volume back; the plan says so before.
    plan = a.json("restore", "volume", "g/v", "--at", "before", "--dry-run")
    assert plan["dry_run"]
    assert plan["hosts"] == []
    done = a.json("restore", "volume", "g/v", "--at", "before", "--confirm", "g/v")
    assert done["head"]["text"] == plan["head"]["text"]
    assert not done["online"]
    a.farshore("volume", "online", "g/v")
    assert read.bytes(a, "g/v") == at_backup

    # Undone: what was discarded is back, at both sites.
    a.farshore("restore", "volume", "g/v", "--at", done["head"]["text"], "--confirm", "g/v", "--online")
    assert read.bytes(a, "g/v") == live
    reached = a.json("wait", "g", "--timeout", "60")
    assert read.bytes(b, f"g/v@{reached['position']}") == live

    # And back again, then written further: the restored volume is a volume like any other.
    a.farshore("restore", "volume", "g/v", "--at", "before", "--confirm", "g/v", "--online")
    again = bytearray(at_backup)
    overwrite(a, "g/v", again, 500, seed=3)
    assert read.bytes(a, "g/v") == again
    reached = a.json("wait", "g", "--timeout", "60")
    assert read.bytes(b, f"g/v@{reached['position']}") == again
    assert read.bytes(b, "g/v@before") == at_backup


@pytest.mark.slow
def test_group_of_two_volumes(pair: tuple[Site, Site], read: Reader) -> None:
    """Writes alternate between the volumes: a cut of the group must not hold one without those before it."""
    a, b = mirrored(pair, "g/data", "g/log")
    with NumberedWriter(a, ["g/data", "g/log"], BLOCKS, seed=4) as writer:
        writer.wait_for(1_000)
        a.farshore("backup", "create", "g", "--label", "both")
        writer.wait_for(1_000)
    a.farshore("wait", "g", "--timeout", "60")
    live = {name: writer.image(name, writer.acknowledged) for name in writer.volumes}

    restored = a.json("restore", "group", "g", "--at", "both", "--confirm", "g", "--online")
    assert sorted(restored["volumes"]) == ["data", "log"]
    held = newest_number(read.file(a, "g/data"), read.file(a, "g/log"))
    assert 1_000 <= held < writer.acknowledged
    for name in writer.volumes:
        expected = writer.image(name, held)
        assert read.bytes(a, name) == expected
        assert read.bytes(b, f"{name}@both") == expected

    # One frame for both volumes, so that a site that has one revert has the other too.
    frames = a.json("journal", "show", "g", "--limit", "5")["frames"]
    assert frames[-1]["kinds"] == {"revert": 2}

    a.farshore("restore", "group", "g", "--at", restored["head"]["text"], "--confirm", "g", "--online")
    for name in writer.volumes:
        assert read.bytes(a, name) == live[name]


def test_split_and_resync_send_what_was_written_meanwhile(pair: tuple[Site, Site], read: Reader) -> None:
    a, b = mirrored(pair, "g/v")
    live = bytearray(SIZE_BYTES)
    overwrite(a, "g/v", live, 1_000, seed=5)
    a.farshore("wait", "g", "--timeout", "30")
    before = a.json("backup", "create", "g", "--label", "split")["cut"]
    a.farshore("pair", "split", "g")
    then = bytes(live)
    overwrite(a, "g/v", live, 1_000, seed=6)
    assert read.bytes(b, "g/v@latest") == then
    a.farshore("pair", "resync", "g", "--source", "local")
    a.farshore("wait", "g", "--state", "paired", "--timeout", "30")
    reached = a.json("wait", "g", "--timeout", "30")
    assert reached["position"].rpartition(":")[2] > str(before["position"])
    assert read.bytes(b, f"g/v@{reached['position']}") == live
    assert read.bytes(b, "g/v@split") == then
