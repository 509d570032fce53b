"""What the command prints: tables for people at a terminal, plain aligned text without one, JSON for scripts.

JSON is one object a line, `{"api":1,"kind":…,"site":…,"data":…}`; progress lines have kind `progress`. With
it, errors too go to standard output; for people they and hints go to standard error. Text from elsewhere is
never read as markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from protocol.errors import FarshoreError

API_VERSION = 1

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


@dataclass(slots=True)
class Activity:
    """Something long that runs; `update` shows how far it is."""

    _output: Output
    _progress: Progress | None
    _task: TaskID | None

    def update(
        self, data: Mapping[str, Any], text: str, *, done: float | None = None, total: float | None = None
    ) -> None:
        """One step: `data` for scripts, `text` and the bar (`done` of `total`) for people."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=text, completed=done, total=total)
        else:
            self._output.progress(data)


class Output:
    """One command's output. `site` is filled in once it is known."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.site = ""
        self._out = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self._err = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at standard output."""
        return self._out.is_terminal and not self.as_json

    @property
    def console(self) -> Console:
        """Standard output, for live displays."""
        return self._out

    def result(self, kind: str, data: Any, show: Callable[[], None]) -> None:
        """The command's result: the JSON object, or whatever `show` prints."""
        if self.as_json:
            self._json({"api": API_VERSION, "kind": kind, "site": self.site, "data": data})
        else:
            show()

    def progress(self, data: Mapping[str, Any]) -> None:
        """A step on the way to the result, for scripts only."""
        if self.as_json:
            self._json({"api": API_VERSION, "kind": "progress", "site": self.site, "data": dict(data)})

    def line(self, text: str) -> None:
        """A line of the result, never wrapped: others cut it up."""
        self._out.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line for a person beside the result."""
        if not self.as_json:
            self._err.print(text, soft_wrap=True)

    def fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values below each other; pairs without a value are left out."""
        kept = [(name, value) for name, value in pairs if value]
        width = max((len(name) for name, _ in kept), default=0)
        for name, value in kept:
            self.line(f"{name:<{width}}  {value}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
        """Rows below their columns' names; `empty` is said (to the person) when there are none."""
        if not rows:
            self.note(empty)
            return
        if self.is_terminal:
            table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
            for name in columns:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(*(styled(cell) for cell in row))
            self._out.print(table)
            return
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in [[name.upper() for name in columns], *rows]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.line("  ".join(cells).rstrip())

    @contextmanager
    def activity(self, text: str) -> Iterator[Activity]:
        """A bar on the terminal's standard error while the body runs; steps as JSON lines for scripts."""
        if self.as_json or not self._err.is_terminal:
            yield Activity(self, None, None)
            return
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._err, transient=True) as progress:
            yield Activity(self, progress, progress.add_task(text, total=None))

    def error(self, error: FarshoreError) -> None:
        """Say an operator error: message, then object, position and next step where there are some."""
        if self.as_json:
            self._json({"api": API_VERSION, "kind": "error", "site": self.site, "errors": [error.as_dict()]})
            return
        self._err.print(Text("error:", style="bold red"), error.message, soft_wrap=True)
        for name, value in (
            ("object", error.subject),
            ("position", error.position),
            ("next", error.next_step),
        ):
            if value:
                self._err.print(f"{name}: {value}", soft_wrap=True)

    def flush(self) -> None:
        """Hand everything to the reader. Raises BrokenPipeError when there is none any more."""
        sys.stdout.flush()
        sys.stderr.flush()

    def _json(self, fields: Mapping[str, Any]) -> None:
        sys.stdout.write(json_line(fields) + "\n")
        # A line that a script waits for must not stay in a buffer.
        sys.stdout.flush()


def json_line(fields: Mapping[str, Any]) -> str:
    """One object as JSON; what moves a terminal's cursor or turns text around stands as its \\u escape, which
    is the same string to whoever parses it."""
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def styled(cell: str) -> Text:
    """A cell or a state with the colour of its first word."""
    return Text(cell, style=STYLES.get(cell.split(" ", 1)[0].lower(), ""))
