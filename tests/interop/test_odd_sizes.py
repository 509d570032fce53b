"""Volumes whose size is no multiple of a block, or of a sector: exactly so long for every client."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import succeed
from tests.support.sites import Site


@pytest.mark.parametrize("size_bytes", [1, 511, 512, 4097, 1_000_001, 5_242_880 + 512])
def test_a_file_of_any_length_comes_out_as_it_went_in(
    site: Site, scratch: Path, tool: Callable[[str], str], size_bytes: int
) -> None:
    image, again, exported = scratch / "in.img", scratch / "out.img", scratch / "exported.img"
    image.write_bytes(random.Random(size_bytes).randbytes(size_bytes))
    uri = site.create_volume("g/v", str(size_bytes))
    assert succeed(tool("nbdinfo"), "--size", uri).strip() == str(size_bytes)
    succeed(tool("nbdcopy"), str(image), uri)
    succeed(tool("nbdcopy"), uri, str(again))
    assert again.read_bytes() == image.read_bytes()
    site.farshore("volume", "export", "g/v", str(exported))
    assert exported.read_bytes() == image.read_bytes()
    site.farshore("volume", "import", str(image), "g/w")
    assert site.json("volume", "show", "g/w")["size_bytes"] == size_bytes
    succeed(tool("nbdcopy"), site.uri("g/w"), str(again))
    assert again.read_bytes() == image.read_bytes()


def test_qemu_sees_whole_sectors(site: Site, scratch: Path, tool: Callable[[str], str]) -> None:
    """What QEMU reads past the end of the last sector is zeroes: that is QEMU's way with such servers."""
    image, again = scratch / "in.img", scratch / "out.img"
    image.write_bytes(random.Random(3).randbytes(1_000_001))
    site.farshore("volume", "import", str(image), "g/v")
    succeed(tool("qemu-img"), "convert", "-O", "raw", site.uri("g/v"), str(again))
    read = again.read_bytes()
    assert read[:1_000_001] == image.read_bytes()
    assert len(read) == -(-1_000_001 // 512) * 512
    assert not any(read[1_000_001:])
