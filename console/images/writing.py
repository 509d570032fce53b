"""An image file made from an export: whole or what changed on top of an earlier one.

In this order: the partial file is filled, made durable, read back and compared, and only then gets its name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from console.images.backing_chain import disk_bytes, opened_chain
from console.images.containers import CLUSTER_BYTES, create, served
from console.images.copying import Step, copy_content, copy_ranges, require_content
from console.images.formats import RAW
from console.images.image import Range, ReadableImage, content_of, rounded
from console.images.nbd_image import NbdImage
from console.images.raw_file import RawFile
from console.unfinished_file import UnfinishedFile
from protocol.errors import Mismatch, Refused

NEXT_STEP = "the disk or the way to it is not to be trusted: check it, then write another file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """`data_bytes` of the volume are no zeroes, `copied_bytes` were written, `file_bytes` are taken on
    disk. `digest` is that of the content (protocol.content_digest), as read back from the file."""

    digest: str
    data_bytes: int
    copied_bytes: int
    file_bytes: int


def write_raw(source: ReadableImage, path: Path, *, replace: bool, step: Step) -> Written:
    """The volume byte for byte, with holes."""
    with UnfinishedFile(path, replace=replace) as file:
        os.ftruncate(file.descriptor, source.size_bytes)
        target = RawFile(file.descriptor, path, source.size_bytes)
        wanted = copy_content(source, target, step)
        file.make_durable()
        digest = require_content(target, wanted, source.size_bytes, str(path), NEXT_STEP)
        file_bytes = os.fstat(file.descriptor).st_blocks * 512
        file.finish()
    return Written(
        digest=digest, data_bytes=wanted.data_bytes, copied_bytes=wanted.data_bytes, file_bytes=file_bytes
    )


def write_image(source: ReadableImage, path: Path, kind: str, *, replace: bool, step: Step) -> Written:
    """The volume as an image of that format that stands for itself."""
    if kind == RAW:
        return write_raw(source, path, replace=replace, step=step)
    with UnfinishedFile(path, replace=replace) as file:
        create(file.partial, source.size_bytes, "", RAW, kind)
        with served(file.partial, read_only=False, kind=kind) as target:
            if target.size_bytes != source.size_bytes:
                raise Refused(
                    f"a {kind} cannot have the size of the volume: {source.size_bytes} bytes",
                    subject=str(path),
                    next_step=f"--format {RAW}",
                )
            wanted = copy_content(source, target, step)
        file.make_durable()
        with served(file.partial, read_only=True, kind=kind) as made:
            digest = require_content(made, wanted, source.size_bytes, str(path), NEXT_STEP)
        file_bytes = os.fstat(file.descriptor).st_blocks * 512
        file.finish()
    return Written(
        digest=digest, data_bytes=wanted.data_bytes, copied_bytes=wanted.data_bytes, file_bytes=file_bytes
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The image of an earlier cut, at which the volume had `size_bytes`; on it the new file builds. `context`
    names what changed since."""

    path: Path
    format: str
    context: str
    size_bytes: int


def write_changes(
    source: NbdImage, path: Path, base: Base, *, whole_check: bool, replace: bool, step: Step
) -> Written:
    """A qcow2 that holds what changed, and reads as the volume through its backing file `base`. With
    `whole_check` all of it is compared with the volume, which also proves that `base` is the right one;
    else what was written. Mismatch; UsageError if `path` is the base, or a file that this one builds on."""
    with opened_chain(base.path, base.format) as below:
        _require_length(base, disk_bytes(below[0]))
        needed = [layer.descriptor for layer in below]
        file = UnfinishedFile(path, replace=replace, needed=needed)
    with file:
        create(file.partial, source.size_bytes, _place(base.path, path), base.format)
        changed = [(offset, length) for offset, length, flags in source.stretches(base.context) if flags & 1]
        clusters = list(rounded(changed, CLUSTER_BYTES, source.size_bytes))
        with served(file.partial, read_only=False) as target:
            copied = copy_ranges(source, target, clusters, CLUSTER_BYTES, step)
        file.make_durable()
        with served(file.partial, read_only=True) as made:
            digest, data_bytes = _compare(source, made, None if whole_check else clusters, path, base)
        file_bytes = os.fstat(file.descriptor).st_blocks * 512
        file.finish()
    return Written(digest=digest, data_bytes=data_bytes, copied_bytes=copied, file_bytes=file_bytes)


def _compare(
    source: ReadableImage, made: ReadableImage, ranges: list[Range] | None, path: Path, base: Base
) -> tuple[str, int]:
    wanted = content_of(source, ranges)
    try:
        digest = require_content(made, wanted, source.size_bytes, str(path), NEXT_STEP, ranges)
    except Mismatch as error:
        if ranges is not None:
            raise
        raise Mismatch(
            f"{path} on top of {base.path} is not the volume at that cut",
            subject=str(path),
            next_step=f"{base.path} must hold the volume at the cut given by --since; or export whole",
        ) from error
    return ("" if ranges is not None else digest), wanted.data_bytes


def _require_length(base: Base, found_bytes: int | None) -> None:
    """What is quickly known to be another disk. Mismatch."""
    if found_bytes not in (None, base.size_bytes):
        raise Mismatch(
            f"{base.path} has {found_bytes} bytes, and the volume at that cut {base.size_bytes}",
            subject=str(base.path),
            next_step="name the file that was exported at the cut given by --since; or export whole",
        )


def _place(base: Path, path: Path) -> str:
    """How the new file names its base: files side by side may be moved together. With a slash before any
    colon, or QEMU would take what stands before that for a protocol."""
    same = base.absolute().parent.resolve() == path.absolute().parent.resolve()
    return f"./{base.name}" if same else str(base.absolute())
