"""What the command prints: tables for people at a terminal, plain aligned text without one, JSON for scripts.

JSON is one object a line, `{"api":1,"kind":…,"site":…,"data":…}`; progress lines have kind `progress`. With
it, errors too go to standard output; for people they and hints go to standard error. Text from elsewhere is
never read as markup, and everything that a person sees is made printable here (protocol/printable.py): no
other module writes to a terminal. What only a terminal sees is loaded when one is there: most commands are
called by scripts, and loading is most of the time that they take.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from console.pasted import for_site
from console.streams import abandon_stdout
from console.styled import Styled, columns_of, fitted, has_colours, text
from protocol.bounds import NAME
from protocol.commands.base import Reply
from protocol.errors import FarshoreError
from protocol.printable import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

API_VERSION = 1


@dataclass(slots=True)
class Activity:
    """Something long that runs; `update` shows how far it is."""

    _output: Output
    _progress: Progress | None
    _task: TaskID | None

    def update(
        self, data: Reply, text: str, *, done: float | None = None, total: float | None = None
    ) -> None:
        """One step: `data` for scripts, `text` and the bar (`done` of `total`) for people."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=printable(text), completed=done, total=total)
        else:
            self._output.progress(data)


class Output:
    """One command's output. `site`, and `site_word` for commands that are printed, are filled in once known;
    `has_result` is true once there is one to print, whether or not it can be; `wide`: tables are whole,
    whatever the terminal's width."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.site = ""
        self.site_word = ""
        self.has_result = False
        self.wide = False

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at standard output."""
        return sys.stdout.isatty() and not self.as_json

    @contextmanager
    def live(self) -> Iterator[Callable[[Sequence[Styled]], None]]:
        """A display on the terminal that is drawn anew with each call of what this gives."""
        from rich.live import Live
        from rich.text import Text

        def drawn(line: Styled) -> Text:
            return Text.from_ansi(line.shown(colours=has_colours()))

        with Live(console=_rich(sys.stdout), auto_refresh=False) as display:
            yield lambda lines: display.update(Text("\n").join(map(drawn, lines)), refresh=True)

    def result(self, kind: str, data: Reply, show: Callable[[], None]) -> None:
        """The command's result: a JSON object with the fields of `data`, or whatever `show` prints. Raises
        StdoutFailed and BrokenPipeError, as whatever prints does."""
        self.has_result = True
        if self.as_json:
            self._line(kind, data)
        else:
            show()

    def progress(self, data: Reply) -> None:
        """A step on the way to the result, for scripts only."""
        if self.as_json:
            self._line("progress", data)

    def line(self, line: str | Styled) -> None:
        """A line of the result, never wrapped: others cut it up. Colours only on a terminal."""
        shown = text(line) if isinstance(line, str) else line
        if self.is_terminal:
            _write(sys.stdout, shown.shown(colours=has_colours()))
        else:
            _write(sys.stdout, printable(shown.plain))

    def pasted(self, text: str) -> str:
        """A text in which commands name the site that this one was for."""
        return for_site(text, self.site_word)

    def lines(self, text: str) -> None:
        """Several lines of the result, as they are."""
        for line in text.split("\n"):
            self.line(line)

    def note(self, *lines: str) -> None:
        """Lines for a person beside the result."""
        if not self.as_json:
            for line in lines:
                _write(sys.stderr, printable(self.pasted(line)))

    def fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values below each other; pairs without a value are left out."""
        kept = [(name, value) for name, value in pairs if value]
        width = max((len(name) for name, _ in kept), default=0)
        for name, value in kept:
            self.line(f"{name:<{width}}  {self.pasted(value)}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
        """Rows below their columns' names; `empty` is said (to the person) when there are none."""
        if not rows:
            self.note(empty)
            return
        if self.is_terminal:
            table = fitted(columns, rows, None if self.wide else columns_of(sys.stdout))
            for line in table.lines:
                self.line(line)
            if table.left_out:
                self.note(f"left out: {', '.join(table.left_out)} (--wide has everything)")
            return
        safe = [[printable(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *safe, strict=True)]
        for row in [[name.upper() for name in columns], *safe]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.line("  ".join(cells).rstrip())

    @contextmanager
    def activity(self, text: str) -> Iterator[Activity]:
        """A bar on the terminal's standard error while the body runs; steps as JSON lines for scripts."""
        if self.as_json or not sys.stderr.isatty():
            yield Activity(self, None, None)
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=_rich(sys.stderr), transient=True) as progress:
            yield Activity(self, progress, progress.add_task(printable(text), total=None))

    def error(self, error: FarshoreError) -> None:
        """Say an operator error: message, then object, position and next step where there are some."""
        next_step = self.pasted(_filled_in(error))
        if self.as_json:
            said = error.as_dict() | {"next": next_step}
            self._json({"api": API_VERSION, "kind": "error", "site": self.site, "errors": [said]})
            return
        line = text("error:", "bold red") + text(f" {error.message}")
        _write(sys.stderr, line.shown(colours=sys.stderr.isatty() and has_colours()))
        for name, value in (
            ("object", error.subject),
            ("position", error.position),
            ("next", next_step),
        ):
            if value:
                _write(sys.stderr, printable(f"{name}: {value}"))

    def flush(self) -> None:
        """Hand everything to the reader. Raises BrokenPipeError when there is none any more, StdoutFailed."""
        sys.stdout.flush()
        sys.stderr.flush()

    def abandon(self) -> None:
        """Nobody takes standard output: what is left to say goes to standard error, for people."""
        abandon_stdout()
        self.as_json = False

    def _line(self, kind: str, data: Reply) -> None:
        fields = msgspec.to_builtins(data)
        self._json({"api": API_VERSION, "kind": kind, "site": self.site, "data": fields})

    def _json(self, fields: Mapping[str, Any]) -> None:
        # JSON has escapes of its own for what another encoding lacks.
        utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        line = json.dumps(fields, ensure_ascii=not utf8, separators=(",", ":"))
        sys.stdout.write(printable_json(line) + "\n")
        # A line that a script waits for must not stay in a buffer.
        sys.stdout.flush()


def _filled_in(error: FarshoreError) -> str:
    """Its next step, for the group that it is about: what reads a journal does not know whose it is. A
    timeline has the form of a name, and is none."""
    group = error.subject.partition("/")[0]
    if re.fullmatch("[0-9a-f]{16}", group):
        return error.next_step
    return re.sub(r"\bGROUP\b", group, error.next_step) if NAME.fullmatch(group) else error.next_step


def _rich(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _write(stream: TextIO, safe: str) -> None:
    stream.write(safe + "\n")
