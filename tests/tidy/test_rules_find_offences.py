"""The tidy rules see through aliases: each rule is shown one offence that it must find."""

from __future__ import annotations

import ast

import pytest

from tests.tidy.source_tree import SourceFile
from tests.tidy.test_reply_kinds import printed_kinds
from tests.tidy.test_tidy import (
    CLOCK_CALLS,
    DURABLE_CALLS,
    banned_references,
    reraises,
    unsafe_children,
)


def source(text: str, path: str = "engine/example.py") -> SourceFile:
    """A file that is not on disk."""
    file = SourceFile(path)
    file.__dict__["text"] = text
    return file


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.time()",
        "import time as t\nx = t.monotonic",
        "from time import monotonic_ns as now\nnow()",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.now()",
    ],
)
def test_a_clock_is_found(text: str) -> None:
    assert list(banned_references([source(text)], CLOCK_CALLS))


@pytest.mark.parametrize("text", ["import os\nos.fsync(3)", "from os import replace\nreplace('a', 'b')"])
def test_a_sync_is_found(text: str) -> None:
    assert list(banned_references([source(text)], DURABLE_CALLS))


@pytest.mark.parametrize(
    "text",
    [
        "import sys\nwords = [sys.executable, '-P', '-m', 'daemon']",
        "from sys import executable\nstart(executable, '-m', 'daemon')",
        "import sys\nwords = [sys.executable, path]",
    ],
)
def test_an_unsafe_child_is_found(text: str) -> None:
    assert list(unsafe_children(source(text)))


def test_a_safe_child_is_let_through() -> None:
    text = "import sys\nwords = [sys.executable, '-P', path]\nplace = dirname(sys.executable)"
    assert not list(unsafe_children(source(text)))


def test_a_local_name_is_not_taken_for_a_module() -> None:
    assert not list(banned_references([source("def f(time):\n    return time.time()")], CLOCK_CALLS))


def test_relative_imports_are_made_absolute() -> None:
    file = source("from ..ports import clock", "engine/journal/reader.py")
    assert [found.module for found in file.imports] == ["engine.ports.clock"]


def test_cleaning_up_and_raising_again_is_no_catch_all() -> None:
    tree = ast.parse("try:\n    f()\nexcept BaseException:\n    g()\n    raise")
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    assert [reraises(handler) for handler in handlers] == [True]


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("session.output.result('a.b', data, show)", {"a.b"}),
        ("kind = 'a.b' if plan else 'a'\n    output.result(kind, data, show)", {"a.b", "a"}),
        ("output.result(kind_of(plan), data, show)", {""}),
        ("answer.result()", set()),
    ],
)
def test_a_printed_kind_is_found(body: str, kinds: set[str]) -> None:
    file = source(f"def show(plan, data):\n    {body}", "console/example.py")
    assert {kind for kind, _ in printed_kinds(file)} == kinds
