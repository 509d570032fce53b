"""Writing all of something at a place of a file: `pwrite` may take less than it is given."""

from __future__ import annotations

import os


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write it. OSError."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
