"""Coloured text and tables for a terminal. Pure but for `columns_of`.

A table fits the terminal: the widest cells are cut with `…`, never wrapped, so that a row stays a line. Where
even that is too wide, the last columns are left out, which are ids and the like in every table. No library of
terminals is loaded for it: most of what `farshore status` takes is loading.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from protocol.printable import printable

COLUMNS = 80
GAP = 2
# What cutting leaves of a cell at least; of a row's name, which is what one types next, more.
CELL_COLUMNS_MIN = 12
NAME_COLUMNS_MIN = 24
CUT = "…"

# ECMA-48, Select Graphic Rendition.
_SGR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}

# Field words that a person must notice, by how much.
STYLES = {
    "paired": "green",
    "available": "green",
    "verified": "green",
    "online": "green",
    "yes": "green",
    "copying": "yellow",
    "pending": "yellow",
    "expired": "yellow",
    "warning": "yellow",
    "split": "yellow",
    "taken": "yellow",
    "detached": "yellow",
    "fetching": "yellow",
    "suspended": "red",
    "diverged": "red",
    "damaged": "red",
    "error": "red",
}


@dataclass(frozen=True, slots=True)
class Styled:
    """Pieces of a line: text and its style, `bold`, a colour, or both with a space between."""

    pieces: tuple[tuple[str, str], ...]

    @property
    def plain(self) -> str:
        """Without colours."""
        return "".join(text for text, _ in self.pieces)

    def __add__(self, other: Styled) -> Styled:
        return Styled((*self.pieces, *other.pieces))

    def shown(self, *, colours: bool) -> str:
        """As a terminal takes it, with nothing unprintable in it."""
        return "".join(_shown(printable(text), style if colours else "") for text, style in self.pieces)


def text(plain: str, style: str = "") -> Styled:
    """One piece."""
    return Styled(((plain, style),))


def joined(separator: str, parts: Iterable[Styled]) -> Styled:
    """One line of them all."""
    pieces: list[tuple[str, str]] = []
    for part in parts:
        pieces += [(separator, ""), *part.pieces] if pieces else part.pieces
    return Styled(tuple(pieces))


def styled(cell: str) -> Styled:
    """A cell or a state with the colour of its first word."""
    return text(cell, _style_of(cell))


def columns_of(stream: TextIO) -> int:
    """How wide the terminal is."""
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS
    except (OSError, ValueError):
        return COLUMNS


def has_colours() -> bool:
    """Whether a terminal here shows them (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def cells_of(plain: str) -> int:
    """How many columns of a terminal it takes: two for a wide character of East Asia, none for one that
    combines with that before it."""
    if plain.isascii():
        return len(plain)
    return sum(map(_cells, plain))


def cut_to(plain: str, columns: int) -> str:
    """Its beginning, with `…` behind it if that is not all."""
    if cells_of(plain) <= columns:
        return plain
    kept, used = [], cells_of(CUT)
    for character in plain:
        used += _cells(character)
        if used > columns:
            break
        kept.append(character)
    return "".join(kept) + CUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A table's lines, and the names of the columns that had no room."""

    lines: list[Styled]
    left_out: list[str]


def fitted(names: Sequence[str], rows: Sequence[Sequence[str]], columns: int | None) -> Fitted:
    """A table in so many columns of a terminal; whole if None."""
    table = [[name.upper() for name in names], *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(cells_of, column)) for column in zip(*table, strict=True)]
    if columns is not None:
        widths = _narrowed(widths, columns)
    lines = []
    for number, row in enumerate(table):
        line = Styled(())
        for place, width in enumerate(widths):
            cell = cut_to(row[place], width)
            pad = 0 if place == len(widths) - 1 else width - cells_of(cell) + GAP
            line += text(cell, _style_of(row[place]) if number else "bold") + text(" " * pad)
        lines.append(line)
    return Fitted(lines=lines, left_out=list(names[len(widths) :]))


def _narrowed(widths: list[int], columns: int) -> list[int]:
    """The widths of those columns that there is room for, the widest made as narrow as it takes."""
    least = [
        min(width, CELL_COLUMNS_MIN if place else NAME_COLUMNS_MIN) for place, width in enumerate(widths)
    ]
    count = len(widths)
    while count > 1 and sum(least[:count]) + GAP * (count - 1) > columns:
        count -= 1
    room = columns - GAP * (count - 1)
    # The largest limit with which they fit.
    low, high = 1, max(widths)
    while low < high:
        limit = (low + high + 1) // 2
        if sum(_limited(widths, least, count, limit)) <= room:
            low = limit
        else:
            high = limit - 1
    return _limited(widths, least, count, low)


def _limited(widths: list[int], least: list[int], count: int, limit: int) -> list[int]:
    return [min(width, max(floor, limit)) for width, floor in zip(widths[:count], least[:count], strict=True)]


def _style_of(cell: str) -> str:
    return STYLES.get(cell.split(" ", 1)[0].lower(), "")


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _shown(safe: str, style: str) -> str:
    codes = ";".join(_SGR[word] for word in style.split())
    return f"\x1b[{codes}m{safe}\x1b[0m" if codes and safe else safe
