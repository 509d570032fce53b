"""`farshore bisect` finds the one frame that spoiled a volume, among many and on a mounted file system."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support.clients import MIB, nbdsh, succeed
from tests.support.sites import Site

WRITES = 300
SPOILED_AT = 231


@pytest.fixture(autouse=True)
def needs(tool: Callable[[str], str]) -> None:
    """Programs and devices."""
    for name in ("nbdfuse", "losetup", "mkfs.ext4"):
        tool(name)
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        missing("mounting needs root, /dev/fuse and loop devices")


@pytest.mark.slow
def test_one_write_among_hundreds(site: Site) -> None:
    uri = site.create_volume("g/v", "16M")
    site.farshore("backup", "create", "g", "--label", "before")
    script = f"""
        for number in range({WRITES}):
            text = b"BAD " if number == {SPOILED_AT} else b"good"
            h.pwrite(text * 1024, 4096 * (1 + number % 1000))
    """
    nbdsh(uri, script)
    check = '! grep -q BAD "$FARSHORE_DEVICE"'
    data = site.json("bisect", "g", "--good", "before", "--bad", "latest", "--raw", "--check", check)
    assert data["frame"]["kinds"] == {"write": 1}
    assert data["good"]["cut"] == data["frame"]["position"]
    assert data["probes"] <= 16
    spoiled = 4096 * (1 + SPOILED_AT)
    read = f"print(h.pread(512, {spoiled}))"
    assert "BAD" not in nbdsh(site.uri(f"g/v@{data['good']['cut']}"), read)
    assert "BAD" in nbdsh(site.uri(f"g/v@{data['bad']['cut']}"), read)
    assert data["restore"] == f"farshore --site a restore group g --at {data['good']['cut']} --confirm g"
    assert site.json("clone", "list")["clones"] == []

    wrong = site.farshore(
        "bisect",
        "g",
        "--good",
        data["bad"]["cut"],
        "--bad",
        "latest",
        "--raw",
        "--check",
        check,
        exit_code=24,
    )
    assert "the check calls --good" in wrong
    words = ("bisect", "g", "--good", "latest", "--bad", "before", "--raw", "--check", check)
    assert "is not before" in site.farshore(*words, exit_code=2)
    words = ("bisect", "g", "--good", "before", "--bad", "latest", "--raw", "--check", "no-such-program")
    assert "could not be carried out" in site.farshore(*words, exit_code=1)


@pytest.mark.slow
def test_the_moment_when_a_file_went(site: Site, scratch: Path, tool: Callable[[str], str]) -> None:
    tree, image, point = scratch / "tree", scratch / "image", scratch / "mnt"
    tree.mkdir()
    point.mkdir()
    (tree / "orders").write_text("orders\n")
    succeed(tool("sqlite3"), tree / "orders.db", "create table orders (n); insert into orders values (1)")
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    succeed(tool("mkfs.ext4"), "-q", "-d", tree, image)
    succeed(tool("nbdcopy"), image, site.create_volume("g/v", "32M"))
    site.farshore("mount", "g/v", str(point), "--writable")
    try:
        for number in range(4):
            (point / f"other-{number}").write_text("other\n")
            succeed("sync", "--file-system", point)
        before = site.json("backup", "create", "g", "--label", "before")["cut"]["position"]
        (point / "orders").unlink()
        (point / "orders.db").unlink()
        succeed("sync", "--file-system", point)
        after = site.json("backup", "create", "g", "--label", "after")["cut"]["position"]
        for number in range(4):
            (point / f"more-{number}").write_text("more\n")
            succeed("sync", "--file-system", point)
    finally:
        site.farshore("umount", str(point))
    check = 'test -f "$FARSHORE_MOUNT/other-0" || exit 99; test -f "$FARSHORE_MOUNT/orders"'
    data = site.json("bisect", "g/v", "--good", "before", "--bad", "latest", "--check", check)
    assert before <= int(data["frame"]["position"].partition(":")[2]) < after
    assert data["restore"].startswith(f"farshore --site a restore volume g/v --at {data['good']['cut']}")
    # The same by a check that is there under a name, with a word for it.
    own = ("--check-hook", "sqlite", "--check-arg", "orders.db")
    again = site.json("bisect", "g/v", "--good", "before", "--bad", "latest", *own)
    assert (again["good"], again["frame"]) == (data["good"], data["frame"])
    assert "what tells good from bad?" in site.farshore(
        "bisect", "g/v", "--good", "before", "--bad", "latest", exit_code=2
    )
    assert site.json("clone", "list")["clones"] == []
