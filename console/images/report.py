"""What is said of an image file that is written or read: its progress, and what it came to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from msgspec import UNSET, UnsetType

from console.figures import size_text, span_text
from console.images.copying import Step
from console.images.formats import NAMES
from console.images.image import ReadableImage
from console.images.writing import Written
from console.local_time import monotonic
from console.output import Activity
from console.session import Session
from protocol.commands.base import Reply
from protocol.commands.cut import CutInfo
from protocol.commands.volume import VolumeUriReply

STEP_EVERY_S = 0.5


FormatOption = Annotated[
    str | None, typer.Option("--format", metavar=NAMES, help="Default: by FILE's suffix, else raw.")
]


class ImageInfo(Reply, frozen=True, kw_only=True):
    """An image file that was written or read. `file_bytes` and `digest` are null where they are not known;
    `base`, of an export, holds what was there `since`."""

    volume: str
    cut: CutInfo | None
    file: str
    format: str
    size_bytes: int
    data_bytes: int
    copied_bytes: int
    file_bytes: int | None
    digest: str | None
    took_s: float
    since: str | UnsetType | None = UNSET
    base: str | UnsetType | None = UNSET


class ImageStep(Reply, frozen=True, kw_only=True):
    """Progress of `volume export`, `volume import` and `journal replay`."""

    volume: str
    done_bytes: int
    total_bytes: int


@contextmanager
def steps(session: Session, volume: str, source: ReadableImage) -> Iterator[Step]:
    """A bar, or a line for scripts now and then."""
    with session.output.activity(volume) as activity:
        yield _Steps(activity, volume, source.size_bytes)


class _Steps:
    """Progress that is not told more often than somebody could read it."""

    def __init__(self, activity: Activity, volume: str, size_bytes: int) -> None:
        self._activity = activity
        self._volume = volume
        self._size_bytes = size_bytes
        self._next = 0.0

    def __call__(self, offset: int) -> None:
        if (now := monotonic()) < self._next:
            return
        self._next = now + STEP_EVERY_S
        data = ImageStep(volume=self._volume, done_bytes=offset, total_bytes=self._size_bytes)
        text = f"{self._volume}: {size_text(offset)} of {size_text(self._size_bytes)}"
        self._activity.update(data, text, done=offset, total=self._size_bytes)


def image_info(
    volume: str, file: str, kind: str, where: VolumeUriReply, made: Written, took_s: float
) -> ImageInfo:
    """What an export or import came to; `where` is the export of the volume."""
    return ImageInfo(
        volume=volume,
        cut=where.cut,
        file=file,
        format=kind,
        size_bytes=where.size_bytes,
        data_bytes=made.data_bytes,
        copied_bytes=made.copied_bytes,
        file_bytes=made.file_bytes or None,
        digest=made.digest or None,
        took_s=round(took_s, 3),
    )


def show_image(session: Session, data: ImageInfo) -> None:
    """The same, for people."""
    output = session.output
    output.fields(
        [
            ("volume", data.volume),
            ("cut", session.cut_line(data.cut)),
            ("file", f"{data.file} ({data.format})"),
            ("on top of", f"{data.base}, since {data.since}" if data.base else ""),
            ("size", size_text(data.size_bytes)),
            ("data", f"{size_text(data.data_bytes)}, {size_text(data.copied_bytes)} copied"),
            ("digest", data.digest or ""),
            ("took", span_text(data.took_s)),
        ]
    )
