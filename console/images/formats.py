"""The formats of image files. One is never guessed from content: what a guest wrote at the start of its disk
must not decide how its image is read. It is given, or follows from the file's name.
"""

from __future__ import annotations

from pathlib import Path

from protocol.errors import UsageError

RAW, QCOW2 = "raw", "qcow2"
FORMATS = (RAW, QCOW2)


def format_of(path: Path, given: str | None) -> str:
    """The format of a file: the one given, or `qcow2` by its suffix, else `raw`. UsageError."""
    if given is None:
        return QCOW2 if path.suffix == ".qcow2" else RAW
    if given not in FORMATS:
        raise UsageError(f"no format {given!r}", subject=given, next_step=f"use one of {', '.join(FORMATS)}")
    return given
