"""qcow2 files, through QEMU's own programs: `qemu-img create` makes one, `qemu-nbd` reads and writes it.

Neither is left to find files by itself, or to guess their formats (console/images/backing_chain.py).
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from console.host_configs import Export
from console.images.backing_chain import Layer, opened_chain
from console.images.formats import QCOW2, RAW
from console.images.image import ReadableImage
from console.images.nbd_image import NbdImage, connect
from console.images.raw_file import RawSource
from protocol.errors import FarshoreError, NotFound

CLUSTER_BYTES = 64 << 10
PACKAGE = "qemu-utils"
TIMEOUT_S = 60.0


def create(path: Path, size_bytes: int, base: str, base_format: str) -> None:
    """A qcow2 of that size without content of its own, on top of `base` (as seen from `path`'s directory, and
    not opened here) if there is one; what stands at `path` is overwritten. FarshoreError with qemu-img's
    words."""
    words = ["create", "-q", "-u", "-f", QCOW2, "-o", f"cluster_size={CLUSTER_BYTES},compat=1.1"]
    words += ["-F", base_format, "-b", base] if base else []
    _run("qemu-img", [*words, "--", str(path.absolute()), str(size_bytes)], path)


@contextmanager
def served(path: Path, *, read_only: bool, alone: bool = False) -> Iterator[NbdImage]:
    """The content of a qcow2, the files that it builds on beneath it; see `opened_chain`. FarshoreError with
    qemu-nbd's words."""
    # A socket's path has 107 bytes: TMPDIR may be longer.
    with tempfile.TemporaryDirectory(prefix="farshore-", dir="/tmp") as directory:
        place = f"{directory}/nbd.sock"
        # It ends with its client, and so with this process however that ends.
        words = ["--fork", "--socket", place, "--discard=unmap", "--cache=writeback"]
        words += ["--read-only"] if read_only else []
        with opened_chain(path, QCOW2, alone=alone) as layers:
            _run("qemu-nbd", [*words, "--", _graph(layers)], path, layers)
        where = Export(name="", unix=place, host="", port=0, tls=False, read_only=read_only)
        with connect(where) as image:
            yield image


@contextmanager
def opened_image(file: Path, kind: str, *, chain: bool) -> Iterator[ReadableImage]:
    """An image file to be read; with `chain` also what a qcow2 builds on."""
    if kind == RAW:
        with RawSource(file) as raw:
            yield raw
        return
    with served(file, read_only=True, alone=not chain) as image:
        yield image


def _graph(layers: Sequence[Layer]) -> str:
    """The whole chain, in QEMU's `json:` form of a file name: what the headers say counts no more."""
    node: dict[str, Any] | None = None
    for layer in reversed(layers):
        device = stat.S_ISBLK(os.fstat(layer.descriptor).st_mode)
        file = {"driver": "host_device" if device else "file", "filename": _open_name(layer)}
        above: dict[str, Any] = {"driver": layer.format, "file": file}
        if layer.format == QCOW2:
            above["backing"] = node
        node = above
    return "json:" + json.dumps(node, separators=(",", ":"))


def _open_name(layer: Layer) -> str:
    """The same file for a child that has the descriptor, whatever its path leads to by now."""
    return f"/proc/self/fd/{layer.descriptor}"


def _run(program: str, words: list[str], path: Path, layers: Sequence[Layer] = ()) -> None:
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
            pass_fds=[layer.descriptor for layer in layers],
        )
    except subprocess.TimeoutExpired as error:
        raise FarshoreError(f"{program} did not answer in {TIMEOUT_S:g} s", subject=str(path)) from error
    if done.returncode:
        said = done.stderr.strip().removeprefix(f"{program}: ") or f"it ended with {done.returncode}"
        raise FarshoreError(f"{program}: {_with_paths(said, layers)}", subject=str(path))


def _with_paths(said: str, layers: Sequence[Layer]) -> str:
    """QEMU's words with the names that the operator knows. The longest number first: 1 begins 12, too."""
    if layers:
        said = said.replace(_graph(layers), str(layers[0].path))
    for layer in sorted(layers, key=lambda each: -each.descriptor):
        said = said.replace(_open_name(layer), str(layer.path))
    return said
