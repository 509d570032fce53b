"""qemu-io with blkverify: QEMU itself compares every read with a plain file that got the same writes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import MIB, call, lines, succeed
from tests.support.sites import Site

SIZE_BYTES = 64 * MIB
SECTOR = 512


def blkverify(raw: Path, site: Site, export: str) -> str:
    """The image options of a pair (plain file, export)."""
    return ",".join(
        [
            "driver=blkverify",
            "raw.driver=file",
            f"raw.filename={raw}",
            "test.driver=nbd",
            "test.server.type=unix",
            f"test.server.path={site.nbd_socket}",
            f"test.export={export}",
        ]
    )


def random_commands(count: int, *, seed: int) -> list[str]:
    """Writes and reads of 512 bytes to 500 KiB at any sector, some with FUA."""
    rng = random.Random(seed)
    commands = []
    for _ in range(count):
        # Half of them in one MiB, so that they overlap and share blocks.
        area = MIB if rng.random() < 0.5 else SIZE_BYTES
        length = SECTOR * rng.choice([1, 1, 2, 7, 8, 9, 64, 200, 1000])
        offset = rng.randrange(0, area - 2 * length + SECTOR, SECTOR)
        kind = rng.random()
        if kind < 0.5:
            flags = " -f" if rng.random() < 0.1 else ""
            commands.append(f"write -q{flags} -P {rng.randrange(1, 256)} {offset} {length}")
        elif kind < 0.6:
            commands.append(f"writev -q -P {rng.randrange(1, 256)} {offset} {length} {length}")
        elif kind < 0.95:
            commands.append(f"read -q {offset} {length}")
        else:
            commands.append("flush")
    # At the end everything, so that no write goes unread.
    return [*commands, *(f"read {offset} {MIB}" for offset in range(0, SIZE_BYTES, MIB))]


@pytest.fixture
def raw(scratch: Path) -> Path:
    """The plain file, as large as the volume."""
    path = scratch / "raw.img"
    with path.open("wb") as image:
        image.truncate(SIZE_BYTES)
    return path


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_read_equals_the_plain_file(
    site: Site, raw: Path, tool: Callable[[str], str], seed: int
) -> None:
    site.create_volume("g/v", f"{SIZE_BYTES // MIB}M")
    out = succeed(
        tool("qemu-io"),
        "--image-opts",
        blkverify(raw, site, "g/v"),
        stdin=lines(random_commands(600, seed=seed)),
    )
    assert "failed" not in out
    assert out.count("read 1048576/1048576 bytes") >= SIZE_BYTES // MIB


def test_blkverify_can_fail(site: Site, raw: Path, tool: Callable[[str], str]) -> None:
    """The check itself is checked: one differing byte must be found."""
    site.create_volume("g/v", f"{SIZE_BYTES // MIB}M")
    with raw.open("r+b") as image:
        image.seek(5 * MIB + 4242)
        image.write(b"x")
    result = call(tool("qemu-io"), "--image-opts", blkverify(raw, site, "g/v"), "-c", f"read {5 * MIB} {MIB}")
    assert result.returncode != 0
    assert "mismatch" in result.stderr + result.stdout
