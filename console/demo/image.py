"""The real input: an ext4 image filled with files of this machine.

Nothing on it is made up: programs, Python's own library, whatever comes first up to the wanted size.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from console.demo.tools import TOOL_TIMEOUT_S
from console.mounts.programs import run

# One file must not fill the image alone.
FILE_BYTES_MAX = 32 << 20
FILES_MAX = 6_000


@dataclass(slots=True)
class Filling:
    """What went into the image."""

    files: int = 0
    content_bytes: int = 0


def _trees() -> list[Path]:
    named = [
        Path("/usr/bin"),
        Path(sysconfig.get_path("stdlib")),
        *(Path("/usr", name) for name in ("sbin", "lib/python3", "share", "lib")),
        Path(sys.prefix, "lib"),
    ]
    found: list[Path] = []
    for tree in named:
        path = tree.resolve()
        if path.is_dir() and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def make_image(image: Path, *, size: str, content_bytes: int) -> Filling:
    """An ext4 file system of `size` (as mkfs takes it) in `image`, with up to `content_bytes` of files."""
    staging = image.with_suffix(".tree")
    staging.mkdir()
    filling = Filling()
    for number, tree in enumerate(_trees()):
        _fill(tree, staging / f"{number}-{tree.name}", filling, content_bytes)
    words = ["mkfs.ext4", "-q", "-F", "-L", "demo", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
    run(*words, "-d", staging, image, size, timeout_s=TOOL_TIMEOUT_S)
    shutil.rmtree(staging)
    return filling


def _fill(tree: Path, target: Path, filling: Filling, content_bytes: int) -> None:
    """Copy files and links until there is enough; what may not be read is left out."""
    for folder, folders, names in os.walk(tree):
        if filling.content_bytes >= content_bytes or filling.files >= FILES_MAX:
            return
        folders.sort()
        place = target / Path(folder).relative_to(tree)
        place.mkdir(parents=True, exist_ok=True)
        for name in sorted(names):
            source = Path(folder, name)
            try:
                if source.is_symlink():
                    os.symlink(os.readlink(source), place / name)
                elif source.is_file() and source.stat().st_size <= FILE_BYTES_MAX:
                    shutil.copy2(source, place / name)
                    filling.content_bytes += source.stat().st_size
                else:
                    continue
            except PermissionError:
                continue
            filling.files += 1
            if filling.content_bytes >= content_bytes or filling.files >= FILES_MAX:
                return
