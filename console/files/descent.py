"""Going down a path below a directory without following a link on the way."""

from __future__ import annotations

import os

from console.files.source import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_below(root: int, path: Path) -> int:
    """A descriptor of the directory at `path` below the open one `root`, name by name. OSError (ELOOP,
    ENOTDIR) if one of the names is a link or no directory."""
    at = os.dup(root)
    for name in path:
        try:
            below = os.open(name, DIRECTORY, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at
