"""Volumes out into image files and in again: raw and qcow2, whole and incremental, read by QEMU's tools."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from console.demo.host import Host
from protocol.errors import ExitCode
from tests.support.clients import KIB, MIB, call, nbdsh, patchy_image, same_content, succeed
from tests.support.oracle import Oracle, content
from tests.support.sites import CommandFailed, Site

SIZE = 48 * MIB


def filled(site: Site, seed: int) -> Oracle:
    """A volume g/v with some content."""
    site.create_volume("g/v", str(SIZE))
    oracle = Oracle(SIZE, seed)
    with Host(site.nbd_socket, "g/v") as host:
        oracle.write(host, oracle.some_blocks(2000))
    return oracle


def more(site: Site, oracle: Oracle, count: int) -> None:
    with Host(site.nbd_socket, "g/v") as host:
        oracle.write(host, oracle.some_blocks(count))


@pytest.mark.slow
def test_an_import_that_ends_early_says_what_is_in_the_volume(site: Site, scratch: Path) -> None:
    """It is online, and a host could take it for the whole image."""
    assert site.stop() == 0
    with (site.directory / "site.toml").open("a") as config:
        config.write('journal_limit_bytes = "8M"\nlock_window_s = "1d"\n')
    site.start()
    image = scratch / "large.img"
    image.write_bytes(os.urandom(SIZE))
    said = site.farshore("volume", "import", str(image), "g/v", exit_code=ExitCode.FAILED)
    assert f"g/v holds only a part of {image}" in said
    assert "--confirm g/v" in said
    refused = site.farshore("volume", "import", str(image), "g/v", exit_code=ExitCode.UNSAFE)
    assert "only a part" not in refused


def test_raw_out_and_in_is_the_same_and_sparse(site: Site, scratch: Path) -> None:
    """At a backup's cut while hosts write on; into a new volume, with the same digest."""
    oracle = filled(site, 1)
    site.farshore("backup", "create", "g", "--label", "monday")
    expected = bytes(oracle.image)
    more(site, oracle, 500)
    image = scratch / "monday.img"
    done = site.json("volume", "export", "g/v", str(image), "--at", "monday")
    assert image.read_bytes() == expected
    assert done["digest"].startswith("xxh3:")
    assert done["cut"]["text"] == site.json("backup", "show", "g", "monday")["cut"]["text"]
    assert image.stat().st_blocks * 512 <= done["data_bytes"] + MIB < SIZE
    assert image.stat().st_mode & 0o077 == 0
    assert not image.with_name("monday.img.partial").exists()
    back = site.json("volume", "import", str(image), "other/v")
    assert back["digest"] == done["digest"]
    assert content(site, "other/v") == expected
    site.farshore("clone", "create", "g@monday", "copy")
    cloned = site.json("volume", "export", "copy/v", str(image), "--replace")
    assert (cloned["digest"], cloned["cut"]) == (done["digest"], None)
    holes = [
        item
        for item in json.loads(succeed("nbdinfo", "--map", "--json", site.uri("other/v")))
        if item["type"]
    ]
    assert holes, "holes came in as data"


def test_a_file_is_not_overwritten_unless_asked(site: Site, scratch: Path) -> None:
    filled(site, 2)
    image = scratch / "v.img"
    image.write_bytes(b"precious")
    site.farshore("volume", "export", "g/v", str(image), exit_code=13)
    assert image.read_bytes() == b"precious"
    site.farshore("volume", "export", "g/v", str(image), "--replace")
    same_content(image, site.uri("g/v"))


def test_qcow2_out_and_in(site: Site, tool: Callable[[str], str], scratch: Path) -> None:
    tool("qemu-img")
    oracle = filled(site, 3)
    image = scratch / "v.qcow2"
    done = site.json("volume", "export", "g/v", str(image))
    succeed("qemu-img", "check", "-f", "qcow2", image)
    succeed("qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, site.uri("g/v"))
    back = site.json("volume", "import", str(image), "other/v")
    assert back["digest"] == done["digest"]
    assert content(site, "other/v") == bytes(oracle.image)


def test_incremental_chain(site: Site, tool: Callable[[str], str], scratch: Path) -> None:
    """Two increments over a raw and a qcow2; zeroes among them hide what lies below. Each is small."""
    tool("qemu-img")
    oracle = filled(site, 4)
    whole, first, second = scratch / "0:0.img", scratch / "1:0.qcow2", scratch / "2.qcow2"
    site.farshore("backup", "create", "g", "--label", "d0")
    site.farshore("volume", "export", "g/v", str(whole), "--at", "d0")
    more(site, oracle, 20)
    nbdsh(site.uri("g/v"), f"h.zero({256 * KIB}, {MIB})")
    oracle.image[MIB : MIB + 256 * KIB] = bytes(256 * KIB)
    site.farshore("backup", "create", "g", "--label", "d1")
    at_d1 = bytes(oracle.image)
    more(site, oracle, 20)
    site.farshore("backup", "create", "g", "--label", "d2")
    done = site.json(
        "volume", "export", "g/v", str(first), "--at", "d1", "--since", "d0", "--base", str(whole)
    )
    assert 0 < done["copied_bytes"] <= 26 * 64 * KIB
    site.farshore(
        *("volume", "export", "g/v", str(second), "--at", "d2", "--since", "d1", "--base", str(first)),
        "--quick",
    )
    link = scratch / "link.qcow2"
    link.symlink_to(whole)
    for taken in (first, whole, link):
        words = ("volume", "export", "g/v", str(taken), "--since", "d1", "--base", str(first))
        site.farshore(*words, "--format", "qcow2", "--replace", exit_code=2)
    for image, expected in ((first, at_d1), (second, bytes(oracle.image))):
        raw = scratch / "read.img"
        succeed("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
        assert raw.read_bytes() == expected
        assert image.stat().st_blocks * 512 < 8 * MIB
    site.farshore("volume", "import", str(second), "other/v", exit_code=13)
    site.farshore("volume", "import", str(second), "other/v", "--chain")
    assert content(site, "other/v") == bytes(oracle.image)


def test_an_increment_over_the_wrong_base_is_a_mismatch(
    site: Site, tool: Callable[[str], str], scratch: Path
) -> None:
    tool("qemu-img")
    oracle = filled(site, 5)
    wrong, made = scratch / "wrong.img", scratch / "made.qcow2"
    site.farshore("volume", "export", "g/v", str(wrong))
    more(site, oracle, 10)
    site.farshore("backup", "create", "g", "--label", "d0")
    more(site, oracle, 1)
    words = ("volume", "export", "g/v", str(made), "--since", "d0", "--base", str(wrong))
    site.farshore(*words, exit_code=24)
    assert not made.exists()
    assert os.listdir(scratch) == ["wrong.img"]
    # One of another length is found without reading it, and so by --quick too.
    short, other = scratch / "short.img", scratch / "other.qcow2"
    short.write_bytes(bytes(5000))
    succeed("qemu-img", "create", "-q", "-f", "qcow2", other, "1M")
    for each in (short, other):
        site.farshore(*words[:-1], str(each), "--quick", exit_code=24)
        assert not made.exists()


def test_import_over_something_asks_first(site: Site, scratch: Path) -> None:
    """It refuses hosts, small volumes and a missing --confirm; then what was there is only in the past."""
    oracle = filled(site, 6)
    image = patchy_image(scratch / "new.img", 8 * MIB, seed=6)
    site.farshore("backup", "create", "g", "--label", "before")
    site.farshore("volume", "import", str(image), "g/v", exit_code=20)
    with Host(site.nbd_socket, "g/v"):
        site.farshore("volume", "import", str(image), "g/v", "--confirm", "g/v", exit_code=11)
    site.farshore("volume", "import", str(image), "g/v", "--confirm", "g/v")
    assert content(site, "g/v") == image.read_bytes() + bytes(SIZE - 8 * MIB)
    assert content(site, "g/v@before") == bytes(oracle.image)
    site.create_volume("g/small", "1M")
    site.farshore("volume", "import", str(image), "g/small", exit_code=13)


def test_export_at_the_secondary(pair: tuple[Site, Site], scratch: Path) -> None:
    primary, secondary = pair
    oracle = filled(primary, 7)
    primary.farshore("pair", "create", "g", "--with", secondary.name)
    primary.farshore("wait", "g", "--state", "paired", "--timeout", "30")
    primary.farshore("backup", "create", "g", "--label", "monday")
    image = scratch / "v.img"
    secondary.farshore("volume", "export", "g/v", str(image), "--at", "monday")
    assert image.read_bytes() == bytes(oracle.image)


def test_images_are_read_by_the_format_that_is_given(
    site: Site, tool: Callable[[str], str], scratch: Path
) -> None:
    """A guest that writes a qcow2 header into its disk does not get its backing file read."""
    tool("qemu-img")
    secret, image = scratch / "secret", scratch / "disk.img"
    secret.write_bytes(b"secret" * 10000)
    succeed("qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", image)
    refused = site.farshore("volume", "import", str(image), "g/v", exit_code=ExitCode.WRONG_STATE)
    assert "begins like a qcow2" in refused
    assert "--format qcow2; or --format raw" in refused
    site.farshore("volume", "import", str(image), "g/v", "--format", "raw")
    raw = image.read_bytes()
    assert content(site, "g/v").rstrip(b"\0") == raw.rstrip(b"\0")
    with pytest.raises(CommandFailed, match="builds on"):
        site.farshore("volume", "import", str(image), "g/w", "--format", "qcow2")
    assert call("qemu-img", "info", image).returncode == 0


def test_an_external_data_file_is_not_read(site: Site, tool: Callable[[str], str], scratch: Path) -> None:
    """Not with --chain either; nothing is made."""
    secret, image = scratch / "secret.raw", scratch / "evil.qcow2"
    secret.write_bytes(b"secret" * 10000)
    options = f"data_file={secret},data_file_raw=on"
    succeed(tool("qemu-img"), "create", "-q", "-f", "qcow2", "-o", options, image, "1M")
    for words in ((), ("--chain",)):
        with pytest.raises(CommandFailed, match=f"another file, {secret}"):
            site.farshore("volume", "import", str(image), "g/leak", *words)
    assert site.json("volume", "list")["volumes"] == []
