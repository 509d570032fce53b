"""A branch that is dropped gives its space back, and nothing else changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.clients import nbdsh, same_content
from tests.support.sites import Site

MIB = 1 << 20


def directory_bytes(site: Site) -> int:
    """What the site's groups take on disk."""
    found = subprocess.run(
        ["du", "-sk", str(site.directory / "groups")], capture_output=True, text=True, check=True, timeout=30
    )
    return int(found.stdout.split()[0]) * 1024


def fill(uri: str, count: int, letter: int) -> None:
    """`count` MiB, written one after the other."""
    lines = [f"h.pwrite(bytes([{letter}]) * {MIB}, {at % 60} << 20)" for at in range(count)]
    nbdsh(uri, *lines, "h.flush()")


def test_a_dropped_branch_gives_its_space_back(pair: tuple[Site, Site], scratch: Path) -> None:
    one, other = pair
    uri = one.create_volume("vm1/root", "64M")
    one.farshore("pair", "create", "vm1", "--with", other.name)
    fill(uri, 30, 1)
    one.farshore("wait", "vm1", "--timeout", "30")
    one.farshore("pair", "split", "vm1")
    other.farshore("wait", "vm1", "--state", "split", "--timeout", "30")
    other.farshore("volume", "online", "vm1/root")
    fill(other.uri("vm1/root"), 120, 2)
    fill(uri, 5, 3)
    other.expected_errors.add("hosts.cut_off")  # of those that wrote there during the split
    refused = one.run("pair", "resync", "vm1")
    assert refused.returncode == 21, refused.stderr
    one.farshore("pair", "resync", "vm1", "--source", "local")
    one.farshore("wait", "vm1", "--state", "paired", "--timeout", "30")
    one.farshore("wait", "vm1", "--timeout", "30")
    (branch,) = other.json("branch", "list", "vm1")["branches"]
    assert branch["bytes"] > 120 * MIB
    image = scratch / "image"
    position = f"vm1/root@{branch['to']['text']}"
    subprocess.run(["nbdcopy", other.uri(position), str(image)], check=True, timeout=60)
    assert image.read_bytes()[: 60 * MIB] == bytes([2]) * (60 * MIB)
    before = directory_bytes(other)
    name = branch["timeline"]
    other.farshore("branch", "drop", "vm1", name, "--confirm", "another", exit_code=20)
    other.farshore("branch", "drop", "vm1", name, "--confirm", name)
    assert other.json("branch", "list", "vm1")["branches"] == []
    freed = before - directory_bytes(other)
    assert freed > 100 * MIB, f"{freed >> 20} MiB came back of {branch['bytes'] >> 20}"
    other.farshore("volume", "uri", position, exit_code=10)
    other.kill()
    other.start()
    fill(uri, 3, 4)
    one.farshore("wait", "vm1", "--timeout", "30")
    cut = one.json("pair", "show", "vm1")["head"]
    at = f"vm1/root@{cut['timeline']}:{cut['position']}"
    subprocess.run(["nbdcopy", one.uri(at), str(image)], check=True, timeout=60)
    same_content(image, other.uri(at))
    other.farshore("verify", "vm1", "--deep")
