"""qcow2, VMDK, VDI, VHDX and VHD files, through QEMU's own programs: `qemu-img create` makes one, `qemu-nbd`
reads and writes it.

Neither is left to find files by itself, or to guess their formats (console/images/backing_chain.py), and what
looks into an image is fenced in (console/images/fenced.py).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from console.host_configs import Export
from console.images.backing_chain import Layer, opened_chain
from console.images.fenced import SAID_BYTES_MAX
from console.images.formats import FORMATS, HEAD_BYTES, QCOW2, RAW, require_disk
from console.images.image import ReadableImage
from console.images.nbd_image import NbdImage, connect
from console.images.raw_file import RawSource
from console.images.vmdk_extents import ExtentFile
from farshore.children import child_words
from protocol.errors import FarshoreError, NotFound, Unreachable

CLUSTER_BYTES = 64 << 10
PACKAGE = "qemu-utils"
TIMEOUT_S = 60.0


def create(path: Path, size_bytes: int, base: str, base_format: str, kind: str = QCOW2) -> None:
    """A container of that size without content of its own, a qcow2 on top of `base` (as seen from `path`'s
    directory, and not opened here) if there is one; what stands at `path` is overwritten. FarshoreError with
    qemu-img's words."""
    program, known = _program("qemu-img", kind), FORMATS[kind]
    words = ["create", "-q", "-u", "-f", known.driver, "-o", known.options]
    words += ["-F", base_format, "-b", base] if base else []
    try:
        done = subprocess.run(
            [program, *words, "--", str(path.absolute()), str(size_bytes)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FarshoreError(f"qemu-img did not answer in {TIMEOUT_S:g} s", subject=str(path)) from error
    if done.returncode:
        raise _failed("qemu-img", done.returncode, done.stderr, path)


@contextmanager
def served(path: Path, *, read_only: bool, alone: bool = False, kind: str = QCOW2) -> Iterator[NbdImage]:
    """The content of a container, the files that it builds on beneath it; see `opened_chain`. FarshoreError
    with qemu-nbd's words. When it ends, what was written is in the file, but not durable."""
    program = _program("qemu-nbd", kind)
    # It ends with its client; and is killed with this process, however that ends.
    words = [program, "--discard=unmap", "--cache=writeback", *(["--read-only"] if read_only else [])]
    with tempfile.TemporaryFile() as said, opened_chain(path, kind, alone=alone) as layers:
        process, image = _serving([*words, "--", _graph(layers)], layers, said, path, read_only=read_only)
        try:
            with image:
                yield image
            if process.wait(TIMEOUT_S) and not read_only:
                raise _ended(process, said, path, layers)
        except subprocess.TimeoutExpired as error:
            raise FarshoreError(f"qemu-nbd did not end in {TIMEOUT_S:g} s", subject=str(path)) from error
        finally:
            _end(process)


@contextmanager
def opened_image(file: Path, kind: str, *, chain: bool, sure: bool = True) -> Iterator[ReadableImage]:
    """An image file to be read; with `chain` also what a qcow2 builds on. Refused for what is raw only as its
    name says nothing (not `sure`), and begins like a container."""
    if kind == RAW:
        with RawSource(file) as raw:
            if not sure:
                require_disk(raw.head(HEAD_BYTES), str(file))
            yield raw
        return
    with served(file, read_only=True, alone=not chain, kind=kind) as image:
        yield image


def _serving(
    words: list[str], layers: Sequence[Layer], said: IO[bytes], path: Path, *, read_only: bool
) -> tuple[subprocess.Popen[bytes], NbdImage]:
    """QEMU's program, and the connection to it. The directory of the socket goes at once: nothing is left of
    it if this process is killed."""
    # A socket's path has 107 bytes: TMPDIR may be longer.
    with tempfile.TemporaryDirectory(prefix="farshore-", dir="/tmp") as directory:
        place = f"{directory}/nbd.sock"
        process = _started(words, layers, place, said, read_only=read_only)
        try:
            where = Export(name="", unix=place, host="", port=0, tls=False, read_only=read_only)
            return process, connect(where)
        except Unreachable as error:
            raise _ended(process, said, path, layers) from error
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _started(
    words: list[str], layers: Sequence[Layer], place: str, said: IO[bytes], *, read_only: bool
) -> subprocess.Popen[bytes]:
    """QEMU's program, fenced in, which has the socket at `place` and the files. Only the first is written."""
    descriptors = [str(file.descriptor) for file in _files(layers)]
    writes = [] if read_only else descriptors[:1]
    reads = descriptors[len(writes) :]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(place)
        listening.listen(1)
        fence = (str(listening.fileno()), ",".join(reads), ",".join(writes), str(os.getpid()))
        return subprocess.Popen(
            child_words("console.images.fenced", *fence, *words),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=[listening.fileno(), *(file.descriptor for file in _files(layers))],
            # Ctrl-C is for this process, which ends the other when it has said what became of the image.
            start_new_session=True,
        )


def _graph(layers: Sequence[Layer]) -> str:
    """The whole chain, in QEMU's `json:` form of a file name: what the headers say counts no more."""
    node: dict[str, Any] | None = None
    for layer in reversed(layers):
        device = stat.S_ISBLK(os.fstat(layer.descriptor).st_mode)
        file = {"driver": "host_device" if device else "file", "filename": _open_name(layer)}
        above: dict[str, Any] = {"driver": FORMATS[layer.format].driver, "file": file}
        if layer.format != RAW:
            above["backing"] = node
        node = above
    return "json:" + json.dumps(node, separators=(",", ":"))


def _files(layers: Sequence[Layer]) -> list[Layer | ExtentFile]:
    files: list[Layer | ExtentFile] = []
    for layer in layers:
        files += [layer, *layer.parts]
    return files


def _open_name(layer: Layer | ExtentFile) -> str:
    """The same file for a child that has the descriptor, whatever its path leads to by now."""
    return f"/proc/self/fd/{layer.descriptor}"


def _program(name: str, kind: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotFound(
            f"{kind} needs {name}, which is not installed",
            subject=name,
            next_step=f"install Debian's {PACKAGE}; or have the disk as a raw image, --format {RAW}",
        )
    return found


def _ended(
    process: subprocess.Popen[bytes], said: IO[bytes], path: Path, layers: Sequence[Layer]
) -> FarshoreError:
    """Why it ended, which it does at once."""
    try:
        code = process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _end(process)
        return FarshoreError(f"qemu-nbd did not answer in {TIMEOUT_S:g} s", subject=str(path))
    said.seek(0)
    text = said.read(SAID_BYTES_MAX).decode(errors="replace")
    return _failed("qemu-nbd", code, _with_paths(text, layers), path)


def _failed(program: str, code: int, said: str, path: Path) -> FarshoreError:
    why = said.strip().removeprefix(f"{program}: ") or f"it ended with {code}"
    return FarshoreError(f"{program}: {why}", subject=str(path))


def _with_paths(said: str, layers: Sequence[Layer]) -> str:
    """QEMU's words with the names that the operator knows. The longest number first: 1 begins 12, too."""
    if layers:
        said = said.replace(_graph(layers), str(layers[0].path))
    for file in sorted(_files(layers), key=lambda each: -each.descriptor):
        said = said.replace(_open_name(file), str(file.path))
    return said
