"""What a file system says of a file beyond what pytsk3 gives, or gives wrongly: each file system has a module
that finds it.

Nothing of a file goes without a word: what cannot be carried over is named in `lacks`, and content that would
come out as something else than what a user of the file system sees is not read at all (`sealed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from protocol.file_stream import shown

Attribute = tuple[bytes, bytes]


@dataclass(slots=True, kw_only=True)
class Facts:
    """None: what pytsk3 says is right. Times in UTC nanoseconds. `nothing`: why the name stands for nothing
    that could be restored; `sealed`: why its content, or a directory's names, cannot be read."""

    mode: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None
    device: tuple[int, int] = (0, 0)
    attributes: list[Attribute] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    nothing: str = ""
    sealed: str = ""


class FactFinder(Protocol):
    """Looks at the files of one file system."""

    def facts(self, number: int, file: Any) -> Facts:
        """Of an inode, which pytsk3 has opened as `file`. Raises OSError."""
        ...


def named(what: str, names: Sequence[bytes], most: int = 8) -> str:
    """`what a, b and 7 more`, printable."""
    words = ", ".join(shown(name) for name in names[:most])
    return f"{what} {words}" + (f" and {len(names) - most} more" if len(names) > most else "")
