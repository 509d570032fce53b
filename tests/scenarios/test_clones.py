"""Clones at both sites of a live pair: writable, apart, never shipped, and gone when deleted."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.clients import nbdsh
from tests.support.pairs import same_at_the_cut, start_fio, start_pair
from tests.support.sites import Site

MIB = 1 << 20


def content(uri: str, scratch: Path) -> bytes:
    """Everything behind an export."""
    image = scratch / "image"
    subprocess.run(["nbdcopy", uri, str(image)], check=True, timeout=60)
    return image.read_bytes()


def test_clones_of_a_live_pair(pair: tuple[Site, Site], scratch: Path) -> None:
    one, other = pair
    start_pair(one, other, "vm1/root", 64 * MIB)
    live = one.uri("vm1/root")
    nbdsh(live, f"h.pwrite(b'a' * {MIB}, 0)", "h.flush()")
    one.farshore("backup", "create", "vm1", "--label", "before")
    before = content(other.uri("vm1/root@before"), scratch)
    load = start_fio(one, "vm1/root", "--time_based", "--runtime=6")
    for site in pair:
        made = site.json("clone", "create", "vm1@before", "try")
        assert made["exports"] == ["try/root"]
        assert content(site.uri("try/root"), scratch) == before
        nbdsh(site.uri("try/root"), f"h.pwrite({site.name!r}.encode() * {MIB}, 32 << 20)", "h.zero(4096, 0)")
    assert load.wait(timeout=30) == 0
    for site in pair:
        site.kill()
        site.start()
        letter = site.name.encode()
        expected = bytes(4096) + before[4096 : 32 * MIB] + letter * MIB + before[33 * MIB :]
        assert content(site.uri("try/root"), scratch) == expected
        assert site.json("branch", "list", "vm1")["branches"] == []
        nbdsh(site.uri("try/root"), "h.pwrite(b'y' * 512, 100 << 10)", "h.flush()")
    same_at_the_cut(one, other, "vm1", ("root",))
    assert content(one.uri("vm1/root@before"), scratch) == before
    one.farshore("clone", "delete", "try", exit_code=20)
    one.farshore("clone", "delete", "try", "--confirm", "try")
    one.farshore("volume", "uri", "try/root", exit_code=10)
    assert one.json("clone", "list")["clones"] == []


def test_refusals_and_temporary_ones(site: Site) -> None:
    uri = site.create_volume("vm1/root", "16M")
    nbdsh(uri, "h.pwrite(b'a' * 4096, 0)", "h.flush()")
    site.farshore("clone", "create", "vm1@latest", "vm1", exit_code=13)
    site.farshore("clone", "create", "vm1/root@latest", "try", "--temporary")
    site.farshore("clone", "create", "vm1@latest", "try", exit_code=13)
    site.farshore("clone", "create", "vm1/other@latest", "more", exit_code=10)
    site.farshore("clone", "create", "vm1", "more", exit_code=2)
    site.farshore("clone", "delete", "more", "--confirm", "more", exit_code=10)
    site.farshore("volume", "create", "try/root", "--size", "16M", exit_code=13)
    nbdsh(site.uri("try/root"), "h.pwrite(b'b' * 4096, 0)", "h.flush()")
    site.kill()
    site.start()
    assert site.json("clone", "list")["clones"] == []
    nbdsh(site.uri("vm1/root"), "assert h.pread(4096, 0) == b'a' * 4096")
