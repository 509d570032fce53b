"""qcow2 files, through QEMU's own programs: `qemu-img create` makes one, `qemu-nbd` reads and writes it.

A format is never guessed from content: what a guest wrote at the start of its disk must not decide how its
image is read. It is given, or follows from the file's name.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from console.host_configs import Export
from console.images.nbd_image import NbdImage, connect
from protocol.errors import FarshoreError, NotFound, UsageError

RAW, QCOW2 = "raw", "qcow2"
FORMATS = (RAW, QCOW2)
CLUSTER_BYTES = 64 << 10
PACKAGE = "qemu-utils"
TIMEOUT_S = 60.0
CHAIN_MAX = 64


def format_of(path: Path, given: str | None) -> str:
    """The format of a file: the one given, or `qcow2` by its suffix, else `raw`. UsageError."""
    if given is None:
        return QCOW2 if path.suffix == ".qcow2" else RAW
    if given not in FORMATS:
        raise UsageError(f"no format {given!r}", subject=given, next_step=f"use one of {', '.join(FORMATS)}")
    return given


def create(path: Path, size_bytes: int, base: str, base_format: str) -> None:
    """A qcow2 of that size without content of its own, on top of `base` (as seen from `path`'s directory) if
    there is one; what stands at `path` is overwritten. FarshoreError with qemu-img's words."""
    words = ["create", "-q", "-f", QCOW2, "-o", f"cluster_size={CLUSTER_BYTES},compat=1.1"]
    words += ["-F", base_format, "-b", base] if base else []
    _run("qemu-img", [*words, "--", str(path.absolute()), str(size_bytes)], path)


def backing_files(path: Path, *, deep: bool) -> list[str]:
    """The file that a qcow2 builds on, and with `deep` those that this one builds on, nearest first. Deep
    opens them: not for an image that is not trusted."""
    found: list[str] = []
    while len(found) < CHAIN_MAX:
        text = _run(
            "qemu-img", ["info", "-U", "-f", QCOW2, "--output=json", "--", str(path.absolute())], path
        )
        info = json.loads(text)
        name = info.get("full-backing-filename") or info.get("backing-filename")
        if name:
            found.append(str(name))
        if not name or not deep or info.get("backing-filename-format") != QCOW2:
            break
        path = Path(str(name))
    return found


@contextmanager
def served(path: Path, *, read_only: bool) -> Iterator[NbdImage]:
    """The content of a qcow2, its backing files beneath it. FarshoreError with qemu-nbd's words."""
    # A socket's path has 107 bytes: TMPDIR may be longer.
    with tempfile.TemporaryDirectory(prefix="farshore-", dir="/tmp") as directory:
        place = f"{directory}/nbd.sock"
        # It ends with its client, and so with this process however that ends.
        words = ["--fork", "--socket", place, "--format", QCOW2, "--discard=unmap", "--cache=writeback"]
        _run("qemu-nbd", [*words, *(["--read-only"] if read_only else []), "--", str(path.absolute())], path)
        where = Export(name="", unix=place, host="", port=0, tls=False, read_only=read_only)
        with connect(where) as image:
            yield image


def _run(program: str, words: list[str], path: Path) -> str:
    found = shutil.which(program)
    if found is None:
        raise NotFound(
            f"qcow2 needs {program}, which is not installed",
            subject=program,
            next_step=f"install Debian's {PACKAGE}, or use --format {RAW}",
        )
    try:
        done = subprocess.run(
            [found, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FarshoreError(f"{program} did not answer in {TIMEOUT_S:g} s", subject=str(path)) from error
    if done.returncode:
        said = done.stderr.strip().removeprefix(f"{program}: ") or f"it ended with {done.returncode}"
        raise FarshoreError(f"{program}: {said}", subject=str(path))
    return done.stdout
