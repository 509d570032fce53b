"""The metadata context farshore:changed-since/CUT, as nbdinfo and libnbd ask for it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from tests.support.clients import KIB, MIB, call, nbdsh, succeed
from tests.support.sites import Site

CONTEXT = "farshore:changed-since/"
Extent = tuple[int, int]


def changed(program: str, uri: str, cut: str) -> list[Extent]:
    """(offset, length) of what nbdinfo says has changed, neighbours joined; the map must cover the export."""
    found: list[Extent] = []
    at = 0
    for item in json.loads(succeed(program, f"--map={CONTEXT}{cut}", "--json", uri)):
        assert item["offset"] == at
        at += item["length"]
        if item["type"] == 1:
            if found and sum(found[-1]) == item["offset"]:
                found[-1] = (found[-1][0], found[-1][1] + item["length"])
            else:
                found.append((item["offset"], item["length"]))
        else:
            assert item["type"] == 0
    assert at == int(succeed(program, "--size", uri))
    return found


def take(site: Site, label: str) -> None:
    site.farshore("backup", "create", "g", "--label", label)


def test_every_export_offers_it(site: Site, tool: Callable[[str], str]) -> None:
    uri = site.create_volume("g/v", "64M")
    take(site, "monday")
    for each in (uri, site.uri("g/v@monday")):
        (export,) = json.loads(succeed(tool("nbdinfo"), "--json", each))["exports"]
        assert {"base:allocation", CONTEXT} <= set(export["contexts"])


def test_live_and_past_exports_name_what_changed(site: Site, tool: Callable[[str], str]) -> None:
    """Writes, zeroes and a restore, over a daemon's restart; a backup compared with an older and a newer."""
    nbdinfo = tool("nbdinfo")
    uri = site.create_volume("g/v", "1G")
    nbdsh(uri, f"h.pwrite(b'a' * {MIB}, 0)\nh.pwrite(b'a' * {MIB}, {900 * MIB})")
    take(site, "first")
    assert changed(nbdinfo, uri, "first") == []
    nbdsh(uri, f"h.pwrite(b'b' * {8 * KIB}, {64 * KIB})\nh.zero({4 * KIB}, {900 * MIB})")
    since_first = [(64 * KIB, 8 * KIB), (900 * MIB, 4 * KIB)]
    assert changed(nbdinfo, uri, "first") == since_first
    take(site, "second")
    nbdsh(uri, f"h.pwrite(b'c' * 512, {512 * MIB + 512})")
    assert changed(nbdinfo, uri, "second") == [(512 * MIB, 4 * KIB)]
    second = site.uri("g/v@second")
    assert changed(nbdinfo, second, "first") == changed(nbdinfo, site.uri("g/v@first"), "second")
    assert changed(nbdinfo, second, "first") == since_first
    site.stop()
    site.start()
    assert changed(nbdinfo, uri, "first") == sorted([*since_first, (512 * MIB, 4 * KIB)])
    site.farshore("restore", "volume", "g/v", "--at", "first", "--confirm", "g/v")
    site.farshore("volume", "online", "g/v")
    assert changed(nbdinfo, uri, "first") == []
    assert since_first[0] in changed(nbdinfo, uri, "second")


def test_with_allocation_and_one_extent_at_a_time(site: Site, tool: Callable[[str], str]) -> None:
    """Both contexts in one connection; QEMU's way of asking, and from the middle of a block."""
    tool("nbdinfo")
    uri = site.create_volume("g/v", "256M")
    nbdsh(uri, f"h.pwrite(b'a' * {MIB}, 0)")
    take(site, "first")
    nbdsh(uri, f"h.pwrite(b'b' * {4 * KIB}, {12 * KIB})")
    script = f"""
        import nbd
        two = nbd.NBD()
        two.add_meta_context("base:allocation")
        two.add_meta_context("{CONTEXT}first")
        two.connect_uri(uri)
        assert two.can_meta_context("{CONTEXT}first")
        seen = {{}}
        def take(context, offset, entries, error):
            seen.setdefault(context, []).append((offset, list(entries)))
        two.block_status(2 * {MIB}, 0, take)
        assert seen["base:allocation"] == [(0, [{MIB}, 0, {MIB}, 3])], seen
        changed = [{12 * KIB}, 0, {4 * KIB}, 1, 2 * {MIB} - {16 * KIB}, 0]
        assert seen["{CONTEXT}first"] == [(0, changed)], seen
        seen.clear()
        two.block_status({MIB}, {12 * KIB} + 512, take, nbd.CMD_FLAG_REQ_ONE)
        assert seen["{CONTEXT}first"] == [({12 * KIB} + 512, [{4 * KIB} - 512, 1])], seen
    """
    nbdsh(uri, script)


def test_many_scattered_changes_are_all_named(site: Site, tool: Callable[[str], str]) -> None:
    """More than one answer holds: the client asks on from where the last one ended."""
    uri = site.create_volume("g/v", "1T")
    take(site, "first")
    rng = random.Random(4)
    blocks = sorted(rng.sample(range((1 << 40) // 4096 // 64), 5000))
    nbdsh(uri, f"for block in {blocks!r}:\n    h.pwrite(b'x' * 4096, block * 4096)")
    site.stop()  # a checkpoint: the versions are in the index, where regions are stepped over
    site.start()
    found = changed(tool("nbdinfo"), uri, "first")
    named = [at // 4096 for offset, length in found for at in range(offset, offset + length, 4096)]
    assert named == blocks


@pytest.mark.parametrize("cut", ["nosuch", "now", "latest", "-10m", "2001-01-01T00:00:00Z"])
def test_a_cut_that_cannot_be_compared_with_is_refused(
    site: Site, tool: Callable[[str], str], cut: str
) -> None:
    uri = site.create_volume("g/v", "64M")
    take(site, "first")
    result = call(tool("nbdinfo"), f"--map={CONTEXT}{cut}", uri)
    assert result.returncode != 0, result.stdout


def test_another_volume_of_that_name_is_not_compared_with(site: Site, tool: Callable[[str], str]) -> None:
    uri = site.create_volume("g/v", "64M")
    nbdsh(uri, "h.pwrite(b'old' * 1024, 0)")
    take(site, "first")
    site.farshore("volume", "delete", "g/v", "--confirm", "g/v")
    site.create_volume("g/v", "64M")
    assert call(tool("nbdinfo"), f"--map={CONTEXT}first", uri).returncode != 0
