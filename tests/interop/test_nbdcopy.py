"""nbdcopy: a volume filled from a file, read back to a file, and copied to another volume."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import MIB, patchy_image, same_content, succeed
from tests.support.sites import Site


@pytest.mark.parametrize("connections", [1, 4])
def test_there_and_back(site: Site, scratch: Path, tool: Callable[[str], str], connections: int) -> None:
    nbdcopy, many = tool("nbdcopy"), f"--connections={connections}"
    image = patchy_image(scratch / "in.img", 128 * MIB, seed=connections)
    uri = site.create_volume("g/v", "128M")
    succeed(nbdcopy, many, "--flush", image, uri)
    same_content(image, uri)
    succeed(nbdcopy, many, uri, scratch / "out.img")
    assert filecmp.cmp(image, scratch / "out.img", shallow=False)


def test_over_old_content(site: Site, scratch: Path, tool: Callable[[str], str]) -> None:
    """Holes of the source must overwrite what was there."""
    uri = site.create_volume("g/v", "32M")
    for seed in (3, 4):
        image = patchy_image(scratch / f"{seed}.img", 32 * MIB, seed=seed)
        succeed(tool("nbdcopy"), "--flush", image, uri)
        same_content(image, uri)


def test_volume_to_volume(site: Site, scratch: Path, tool: Callable[[str], str]) -> None:
    image = patchy_image(scratch / "in.img", 32 * MIB, seed=9)
    first, second = site.create_volume("g/one", "32M"), site.create_volume("other/two", "32M")
    succeed(tool("nbdcopy"), image, first)
    succeed(tool("nbdcopy"), first, second)
    same_content(image, second)
