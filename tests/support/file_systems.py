"""File systems in images, honest and hostile, made with the tools that make them everywhere.

Hostile ones are honest ones whose bytes are changed afterwards: without checksums (`^metadata_csum`) and
without hashed directories, so that the change is all that is wrong.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.clients import succeed
from tests.support.sites import Site

PLAIN = "^metadata_csum,^dir_index,^64bit"


def make_ext(path: Path, tree: Path, size: str, *options: str, kind: str = "ext4") -> Path:
    """An ext file system with the files under `tree`."""
    # Its lost+found is as old as the image: no test compares it.
    succeed("mke2fs", "-q", "-F", "-t", kind, "-d", tree, *options, path, size)
    return path


def debugfs(image: Path, *requests: str) -> str:
    """Requests to debugfs, writing."""
    commands = image.with_suffix(".debugfs")
    commands.write_text("".join(f"{request}\n" for request in requests))
    return succeed("debugfs", "-w", "-f", commands, image)


def inode_at(image: Path, path: str) -> tuple[int, int]:
    """Block and offset in it of an inode, by debugfs."""
    text = succeed("debugfs", "-R", f"imap {path}", image)
    located = text.split("located at block")[1].replace("offset", "").split(",")
    return int(located[0], 0), int(located[1], 0)


def replace_bytes(image: Path, old: bytes, new: bytes) -> int:
    """Replace every occurrence with as many bytes; how many there were. Fails if there was none."""
    if len(old) != len(new):
        raise ValueError("not of the same length")
    data = image.read_bytes()
    count = data.count(old)
    if not count:
        raise AssertionError(f"{old!r} is not in {image}")
    image.write_bytes(data.replace(old, new))
    return count


def write_at(image: Path, offset: int, data: bytes) -> None:
    """Overwrite."""
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def import_image(site: Site, volume: str, image: Path, label: str, nbdcopy: str) -> None:
    """The image on a new volume, with a backup of it."""
    size = -(-image.stat().st_size // 4096) * 4096
    os.truncate(image, size)
    site.farshore("volume", "create", volume, "--size", str(size))
    succeed(nbdcopy, "--flush", image, f"nbd+unix:///{volume}?socket={site.nbd_socket}")
    site.farshore("backup", "create", volume.split("/")[0], "--label", label)
