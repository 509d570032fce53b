"""In which cuts a file differs. Two looks at a file are one version if its inode, size and time are the same;
otherwise its content decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from console.files.walk import Item
from protocol.commands.cut import CutInfo
from protocol.file_stream import Entry


@dataclass(slots=True, kw_only=True)
class Version:
    """Cuts in a row at which a path was the same, by name. `digest` is a file's."""

    entry: Entry | None
    cuts: list[tuple[str, CutInfo]] = field(default_factory=list)
    digest: bytes = b""


class Versions:
    """Takes a path's looks from the oldest cut on."""

    def __init__(self) -> None:
        self.found: list[Version] = []

    def add(self, name: str, cut: CutInfo, item: Item | None, digest: Callable[[], bytes]) -> None:
        """The path at one more cut, None where there was nothing; `digest` reads its content. Raises Failed
        if that was needed and failed."""
        entry = item.entry if item is not None else None
        last = self.found[-1] if self.found else None
        if last is not None and _looks_same(last.entry, entry):
            last.cuts.append((name, cut))
            return
        held = digest() if entry is not None and entry.what == "f" else b""
        if last is not None and _is_same(last, entry, held):
            last.entry = entry
            last.cuts.append((name, cut))
            return
        self.found.append(Version(entry=entry, cuts=[(name, cut)], digest=held))


def _looks_same(one: Entry | None, other: Entry | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.what, one.number, one.size_bytes, one.mtime_ns, one.target) == (
        other.what,
        other.number,
        other.size_bytes,
        other.mtime_ns,
        other.target,
    )


def _is_same(last: Version, entry: Entry | None, digest: bytes) -> bool:
    """Touched, or written anew with what it held: no other version of it."""
    if last.entry is None or entry is None or last.entry.what != entry.what:
        return False
    if entry.what == "f":
        return last.digest == digest
    return entry.what == "l" and last.entry.target == entry.target
