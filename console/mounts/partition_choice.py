"""Which partition of each volume: `--partition N` for all that have a table, `--partition V=N` for one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import typer

from console.mounts.filesystems import partitions
from console.mounts.mounting import Mount
from protocol.errors import NotFound, UsageError

NUMBER_DIGITS_MAX = 3  # GPT has 128 of them, and hardly any table more

PartitionOption = Annotated[
    list[str] | None,
    typer.Option("--partition", metavar="N|V=N", help="A partition: of every volume, or of volume V."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionChoice:
    """`everywhere`: of volumes that `of` does not name."""

    everywhere: int | None = None
    of: Mapping[str, int] = field(default_factory=dict)

    def require_volumes(self, volumes: Collection[str], group: str) -> None:
        """Raises NotFound for a volume that is named and not among these."""
        for name in self.of:
            if name not in volumes:
                there = ", ".join(volumes)
                raise NotFound(f"--partition {name}=…: {group} has {there}", subject=f"{group}/{name}")

    def number(self, volume: str, made: Mount, *, alone: bool) -> int | None:
        """The partition of an attached volume, None for one that needs no choice. Unless it is `alone`, a
        volume without a table is taken whole."""
        if volume in self.of:
            return self.of[volume]
        return self.everywhere if alone or partitions(made.file) else None


def parse_partitions(words: Sequence[str]) -> PartitionChoice:
    """The values of `--partition`. Raises UsageError."""
    everywhere: int | None = None
    of: dict[str, int] = {}
    for word in words:
        volume, named, text = word.rpartition("=")
        is_number = text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX and int(text) > 0
        if not is_number or (named and not volume):
            raise UsageError(f"--partition {word}: no partition's number", next_step="--partition N, or V=N")
        if volume in of or (not named and everywhere is not None):
            raise UsageError(f"--partition {word}: a second one", next_step="--partition V=N for each volume")
        if named:
            of[volume] = int(text)
        else:
            everywhere = int(text)
    return PartitionChoice(everywhere=everywhere, of=of)
