"""qemu-img: convert into and out of a volume, compare, and a file system that is still clean afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.clients import MIB, ext4_image, fsck, patchy_image, same_content, succeed
from tests.support.sites import Site

TREE = Path("/usr/lib/python3")


def test_convert_both_ways(site: Site, scratch: Path, tool: Callable[[str], str]) -> None:
    qemu_img = tool("qemu-img")
    raw, packed = patchy_image(scratch / "in.img", 64 * MIB, seed=21), scratch / "in.qcow2"
    succeed(qemu_img, "convert", "-f", "raw", "-O", "qcow2", raw, packed)
    uri = site.create_volume("g/v", "64M")
    succeed(qemu_img, "convert", "-n", "-f", "qcow2", "-O", "raw", packed, uri)
    same_content(raw, uri)
    back = scratch / "back.qcow2"
    succeed(qemu_img, "convert", "-f", "raw", "-O", "qcow2", uri, back)
    succeed(qemu_img, "check", back)
    succeed(qemu_img, "compare", "-f", "raw", "-F", "qcow2", raw, back)


def test_info_says_the_size(site: Site, tool: Callable[[str], str]) -> None:
    uri = site.create_volume("g/v", "64M")
    assert "67108864 bytes" in succeed(tool("qemu-img"), "info", "-f", "raw", uri)


def test_a_file_system_comes_back_clean(site: Site, scratch: Path, tool: Callable[[str], str]) -> None:
    image = ext4_image(scratch / "fs.img", "192M", TREE, mkfs=tool("mkfs.ext4"))
    uri = site.create_volume("g/v", "192M")
    succeed(tool("qemu-img"), "convert", "-n", "-f", "raw", "-O", "raw", image, uri)
    same_content(image, uri)
    back = scratch / "back.img"
    succeed(tool("qemu-img"), "convert", "-f", "raw", "-O", "raw", uri, back)
    fsck(back, program=tool("e2fsck"))
