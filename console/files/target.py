"""`G/V@CUT:/PATH` as a user writes it. A cut may hold colons and a path anything, so the path begins at the
first `:/`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from console.files.source import Path
from console.files.walk import parse_path
from protocol.commands.base import parse_volume_name
from protocol.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A path in a volume. `cut` is None where none was named."""

    group: str
    volume: str
    cut: str | None
    path: Path

    @property
    def name(self) -> str:
        """`G/V`."""
        return f"{self.group}/{self.volume}"


def parse_place(text: str, *, with_cut: bool) -> Place:
    """`with_cut`: whether a cut must be named, or must not. Raises UsageError."""
    where, colon, path = text.partition(":/")
    form = "G/V@CUT:/PATH" if with_cut else "G/V:/PATH"
    if not colon and where.endswith(":"):
        where, colon = where[:-1], ":"
    volume, at, cut = where.partition("@")
    if not colon or bool(at) != with_cut or (with_cut and not cut):
        raise UsageError(f"{text!r} is not {form}", subject=text, next_step=f"write {form}")
    group, name = parse_volume_name(volume)
    return Place(group=group, volume=name, cut=cut if at else None, path=parse_path(os.fsencode(path)))
