"""What gives files: a reader of file systems in a process of its own, or a mounted directory.

Both are asked the same, and neither is believed: names that come from here are checked where they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from protocol.errors import FarshoreError
from protocol.file_stream import Data, Entry, Extents, Opened

# Names from the root directory down; empty for the root itself.
Path = tuple[bytes, ...]


class Failed(FarshoreError):
    """One directory or file could not be read; the others may."""

    code = "unreadable"


class FileSource(Protocol):
    """The tree of one file system. Calls may raise FarshoreError; `Failed` if others may still succeed."""

    @property
    def opened(self) -> Opened:
        """What was found in the volume."""
        ...

    def root(self) -> Entry:
        """The root directory."""
        ...

    def names(self, path: Path, entry: Entry) -> tuple[list[Entry], list[tuple[bytes, str]]]:
        """A directory's entries, and which names (empty: some) did not come, and why."""
        ...

    def content(self, path: Path, entry: Entry) -> Iterator[Extents | Data]:
        """A file: one `Extents` with all of them, then its data in order."""
        ...

    def close(self) -> None:
        """Give back what is held; twice is fine."""
        ...
