"""An image and the files that it builds on: found here, before QEMU opens any of them.

A VDI, VHDX or VHD must stand for itself. A qcow2 may build on others, and a VMDK may have its content in
files beside it, where that was asked for.

QEMU takes a name in an image for whatever it can be: a path, `nbd:…`, `json:{…}`; it guesses a format that is
not said from content; and it opens an external data file as soon as it is asked about the image. So names are
read from the headers by this module, nothing but files in a format that is said is accepted, and QEMU is told
about each as a descriptor that is open already.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from console.images.formats import CHAIN_FORMATS, QCOW2, RAW, VMDK
from console.images.qcow2_header import FIRST_CLUSTER_BYTES_MAX, Qcow2Header, parse_header
from console.images.raw_file import open_image
from console.images.vmdk_extents import (
    TEXT_BYTES_MAX,
    ExtentFile,
    described,
    extents_in,
    names_of,
    open_extents,
)
from protocol.errors import FarshoreError, Refused

# QEMU takes 2 s to open so many that are named one by one, and 20 s for twice as many.
CHAIN_FILES_MAX = 128
# A child has its streams below, and the socket that it serves on.
DESCRIPTOR_MIN = 10
_CHAIN_NAMES = "|".join(CHAIN_FORMATS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One file of a chain. `descriptor` is open for reading. `parts`: other files that hold its content."""

    path: Path
    format: str
    descriptor: int
    parts: tuple[ExtentFile, ...] = ()


@contextmanager
def opened_chain(path: Path, image_format: str, *, alone: bool = False) -> Iterator[list[Layer]]:
    """The image and what it builds on, nearest first, open until the block ends. Refused if it builds on
    anything although it must stand `alone`, and for whatever but raw and qcow2 files, or parts of a VMDK
    beside it, is named in it; NotFound or FarshoreError for a file that cannot be read."""
    with ExitStack() as files:
        layers: list[Layer] = []
        place: tuple[Path, str] | None = (path, image_format)
        while place is not None:
            if len(layers) == CHAIN_FILES_MAX:
                raise Refused(
                    f"{path} builds on itself, or on {CHAIN_FILES_MAX} files or more",
                    subject=str(path),
                    next_step="`qemu-img convert` makes one file of them",
                )
            descriptor = _opened(place[0])
            files.callback(os.close, descriptor)
            layer = Layer(path=place[0], format=place[1], descriptor=descriptor)
            layers.append(layer)
            place = _below(layer, alone=alone) if layer.format == QCOW2 else None
            if layer.format == VMDK and _vmdk_elsewhere(layer, alone=alone):
                layers[-1] = _in_parts(layer, files)
        yield layers


def disk_bytes(layer: Layer) -> int | None:
    """How long the disk of a raw or qcow2 image is; None of others. FarshoreError."""
    if layer.format == RAW:
        return os.fstat(layer.descriptor).st_size
    return _header(layer).size_bytes if layer.format == QCOW2 else None


def _opened(path: Path) -> int:
    descriptor = open_image(path)
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, DESCRIPTOR_MIN)
    finally:
        os.close(descriptor)


def _vmdk_elsewhere(layer: Layer, *, alone: bool) -> bool:
    """Whether a VMDK has its content in other files. Refused for that if it must stand alone, and for one
    that builds on others in any case."""
    path, names = layer.path, names_of(layer.path, layer.descriptor)
    if names.parent:
        raise Refused(
            f"{path} builds on {names.parent}",
            subject=str(path),
            next_step=f"if you trust the image: `qemu-img convert -f vmdk -O qcow2 {quote(str(path))} "
            f"{quote(str(path.with_suffix('.qcow2')))}`",
        )
    if names.elsewhere and alone:
        listed = ", ".join(name for _, name in names.extents) or "no file"
        raise Refused(
            f"{path} only describes a disk, whose content is in {listed}: reading it reads that too",
            subject=str(path),
            next_step="if you trust the image: add --chain",
        )
    return names.elsewhere


def _in_parts(layer: Layer, files: ExitStack) -> Layer:
    """The same with the files that it describes."""
    text = os.pread(layer.descriptor, TEXT_BYTES_MAX, 0)
    extents = extents_in(text, layer.path)
    parts = open_extents(layer.path, extents, files, DESCRIPTOR_MIN)
    descriptor = described(extents, parts, files, DESCRIPTOR_MIN)
    return Layer(path=layer.path, format=VMDK, descriptor=descriptor, parts=tuple(parts))


def _below(layer: Layer, *, alone: bool) -> tuple[Path, str] | None:
    """Path and format of what a qcow2 builds on."""
    header, path = _header(layer), layer.path
    if header.external_data:
        raise Refused(
            f"{path} has its content in another file, {header.data_name or 'without a name'}",
            subject=str(path),
            next_step="if you trust the image: make one file of it (`qemu-img convert`), and import that",
        )
    if header.encrypted:
        raise Refused(
            f"{path} is encrypted", subject=str(path), next_step="`qemu-img convert` takes the secret"
        )
    name = header.backing_name
    if not name:
        return None
    if alone:
        raise Refused(
            f"{path} builds on {name}: reading it reads that too",
            subject=str(path),
            next_step="if you trust the image: add --chain",
        )
    if ":" in name.partition("/")[0]:
        raise Refused(
            f"{path} builds on {name}, which is no path",
            subject=str(path),
            next_step="if you trust the image: make one file of it (`qemu-img convert`)",
        )
    if header.backing_format not in CHAIN_FORMATS:
        kind = header.backing_format
        raise Refused(
            f"{path} builds on {name} of {f'the format {kind}' if kind else 'a format that it does not say'}",
            subject=str(path),
            next_step=f"if you know that it is right: `qemu-img rebase -u -b NAME -F {_CHAIN_NAMES}`",
        )
    return path.parent / name, header.backing_format


def _header(layer: Layer) -> Qcow2Header:
    try:
        return parse_header(os.pread(layer.descriptor, FIRST_CLUSTER_BYTES_MAX, 0))
    except OSError as error:
        why = f"cannot read {layer.path}: {error.strerror}"
        raise FarshoreError(why, subject=str(layer.path)) from error
    except FarshoreError as error:
        raise FarshoreError(f"{layer.path} is no qcow2: {error}", subject=str(layer.path)) from error
