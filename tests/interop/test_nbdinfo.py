"""nbdinfo: what an export says of itself, and which ranges it says are allocated."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.clients import KIB, MIB, nbdsh, succeed
from tests.support.sites import Site

DATA, HOLE_AND_ZERO = 0, 3


def info(program: str, uri: str) -> Any:
    """The only export of `nbdinfo --json`."""
    (export,) = json.loads(succeed(program, "--json", uri))["exports"]
    return export


def extents(program: str, uri: str) -> list[tuple[int, int, int]]:
    """(offset, length, type) of base:allocation, neighbours of one type joined."""
    joined: list[tuple[int, int, int]] = []
    for item in json.loads(succeed(program, "--map", "--json", uri)):
        offset, length, kind = item["offset"], item["length"], item["type"]
        if joined and joined[-1][2] == kind and sum(joined[-1][:2]) == offset:
            joined[-1] = (joined[-1][0], joined[-1][1] + length, kind)
        else:
            joined.append((offset, length, kind))
    return joined


@pytest.mark.parametrize("size_bytes", [4096, 1 * MIB, 10 << 30, 1 << 40])
def test_size(site: Site, tool: Callable[[str], str], size_bytes: int) -> None:
    uri = site.create_volume("g/v", str(size_bytes))
    assert succeed(tool("nbdinfo"), "--size", uri).strip() == str(size_bytes)


def test_abilities_and_block_sizes(site: Site, tool: Callable[[str], str]) -> None:
    uri = site.create_volume("g/v", "64M")
    export = info(tool("nbdinfo"), uri)
    wanted = ["can_cache", "can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn", "can_trim"]
    assert {name: export[name] for name in wanted} == dict.fromkeys(wanted, True)
    assert export["can_zero"] is True
    assert export["is_read_only"] is False
    assert export["block_size_minimum"] == 512
    assert export["block_size_preferred"] == 4096
    assert export["block_size_maximum"] == 32 * MIB
    assert "base:allocation" in export["contexts"]


def test_list_names_every_volume(site: Site, tool: Callable[[str], str]) -> None:
    for name, size in (("g/one", "1M"), ("g/two", "2M"), ("other/three", "3M")):
        site.create_volume(name, size)
    uri = f"nbd+unix:///?socket={site.nbd_socket}"
    listed = json.loads(succeed(tool("nbdinfo"), "--list", "--json", uri))["exports"]
    sizes = {item["export-name"]: item["export-size"] for item in listed}
    assert sizes == {"g/one": MIB, "g/two": 2 * MIB, "other/three": 3 * MIB}


def test_map_of_an_empty_volume_is_one_hole(site: Site, tool: Callable[[str], str]) -> None:
    uri = site.create_volume("g/v", "64M")
    assert extents(tool("nbdinfo"), uri) == [(0, 64 * MIB, HOLE_AND_ZERO)]


def test_map_follows_writes_and_zeroes(site: Site, tool: Callable[[str], str]) -> None:
    uri = site.create_volume("g/v", "64M")
    nbdsh(uri, f"h.pwrite(b'x' * {64 * KIB}, {MIB})")
    assert extents(tool("nbdinfo"), uri) == [
        (0, MIB, HOLE_AND_ZERO),
        (MIB, 64 * KIB, DATA),
        (MIB + 64 * KIB, 63 * MIB - 64 * KIB, HOLE_AND_ZERO),
    ]
    nbdsh(uri, f"h.zero({32 * KIB}, {MIB})")
    data = [(offset, length) for offset, length, kind in extents(tool("nbdinfo"), uri) if kind == DATA]
    assert data == [(MIB + 32 * KIB, 32 * KIB)]
    nbdsh(uri, f"h.trim({32 * KIB}, {MIB + 32 * KIB})\nassert h.pread(65536, {MIB}) == bytes(65536)")


def test_map_never_calls_written_data_a_hole(site: Site, tool: Callable[[str], str]) -> None:
    """Single blocks far apart: each must be told as data, and the lengths must add up to the volume."""
    uri = site.create_volume("g/v", "1G")
    offsets = [0, 8 * KIB, 5 * MIB, 5 * MIB + 8 * KIB, 512 * MIB, (1 << 30) - 4096]
    nbdsh(uri, "\n".join(f"h.pwrite(b'y' * 4096, {offset})" for offset in offsets))
    found = extents(tool("nbdinfo"), uri)
    assert sum(length for _, length, _ in found) == 1 << 30
    assert [(offset, length) for offset, length, kind in found if kind == DATA] == [
        (offset, 4096) for offset in offsets
    ]
