"""Tables that fit a terminal, and what they are without one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.styled import GAP, cells_of, cut_to, fitted, joined, styled, text
from tests.unit.console.conftest import COMMAND, ROOT
from tests.unit.console.stub_site import StubSite

CELLS = st.text(max_size=60)
NAMES = ("name", "state", "time", "more", "id")


@given(st.lists(st.tuples(*[CELLS] * 5), min_size=1, max_size=8), st.integers(40, 120))
def test_no_row_is_wider_than_the_terminal(rows: list[tuple[str, ...]], columns: int) -> None:
    table = fitted(NAMES, rows, columns)
    assert len(table.lines) == len(rows) + 1
    for line in table.lines:
        assert cells_of(line.plain) <= columns
        assert line.shown(colours=False).isprintable()
    shown = len(NAMES) - len(table.left_out)
    assert list(NAMES[shown:]) == table.left_out


def test_the_widest_is_cut_first_and_the_last_left_out() -> None:
    rows = [("vm1", "paired", "x" * 70, "y" * 30, "z" * 16)]
    table = fitted(NAMES, rows, 80)
    assert table.left_out == []
    name, state, time, more, number = table.lines[1].plain.split()
    assert (name, state, number) == ("vm1", "paired", "z" * 16)
    assert time.endswith("…")
    assert more.endswith("…")
    assert cells_of(table.lines[1].plain) in (79, 80)
    assert fitted(NAMES, rows, 40).left_out == ["id"]
    assert fitted(NAMES, rows, 36).left_out == ["more", "id"]


def test_what_fits_stays_whole() -> None:
    rows = [("vm1", "paired", "t", "m", "i"), ("a-longer-name", "split", "t", "m", "i")]
    lines = [line.plain.rstrip() for line in fitted(NAMES, rows, 80).lines]
    assert lines == [
        "NAME           STATE   TIME  MORE  ID",
        "vm1            paired  t     m     i",
        "a-longer-name  split   t     m     i",
    ]
    wide = fitted(NAMES, [("x" * 100,) * 5], None)
    assert cells_of(wide.lines[1].plain) == 500 + 4 * GAP


def test_characters_that_take_two_columns_or_none() -> None:
    assert cells_of("日本") == 4
    assert cells_of("e\u0301") == 1
    assert cut_to("日本語", 5) == "日本…"
    assert cut_to("日本語", 4) == "日…"
    assert cut_to("abc", 3) == "abc"


def test_colours_are_those_of_the_first_word() -> None:
    line = joined(" | ", [styled("paired to par"), text("x\x1b[2J", "bold"), styled("other")])
    assert line.plain == "paired to par | x\x1b[2J | other"
    assert line.shown(colours=True) == "\x1b[32mpaired to par\x1b[0m | \x1b[1mx\\x1b[2J\x1b[0m | other"
    assert line.shown(colours=False) == "paired to par | x\\x1b[2J | other"


def on_terminal(columns: int, *words: str) -> str:
    """What a terminal of that width gets, without colours."""
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    screen = b""
    try:
        while chunk := os.read(master, 65_536):
            screen += chunk
    except OSError:  # EIO: the last writer has closed
        pass
    assert process.wait(20) == 0, screen
    os.close(master)
    return screen.decode()


@pytest.mark.parametrize(
    "line", ["backup list", "peer list", "volume list", "group list", "journal show vm1"]
)
def test_lists_fit_eighty_columns(line: str, stub: StubSite) -> None:
    words = [*line.split(), "--site", str(stub.directory)]
    rows = re.split(r"[\r\n]+", on_terminal(80, *words))
    assert all(cells_of(row) <= 80 for row in rows if not row.startswith("timeline")), rows
    whole = on_terminal(80, *words, "--wide")
    assert "left out" not in whole
    assert "…" not in whole


def test_a_pipe_gets_everything(stub: StubSite) -> None:
    words = ["peer", "list", "--site", str(stub.directory)]
    piped = subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "20"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "FINGERPRINT" in piped.stdout
    assert "…" not in piped.stdout
    assert "left out: " in on_terminal(60, *words)
