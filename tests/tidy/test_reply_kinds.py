"""What `--json` prints: console/kinds.py has each kind that is printed, and no field of one is lost."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from console.kinds import KINDS, reply_types
from protocol.commands.base import Reply
from tests.golden.replies import ACCEPT, added, broken, fields, load
from tests.tidy.source_tree import SourceFile, production_files
from tests.tidy.test_tidy import report

PRINTER = "console/output.py"


def printed_kinds(file: SourceFile) -> Iterator[tuple[str, int]]:
    """Every kind that `output.result` is called with and its line; an empty one where no literal is found."""
    for function in file.nodes:
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and is_result(call.func):
                for kind in words_of(call.args[0], function) or [""]:
                    yield kind, call.lineno


def is_result(called: ast.expr) -> bool:
    """`output.result`, `session.output.result`."""
    if not isinstance(called, ast.Attribute) or called.attr != "result":
        return False
    owner = called.value
    return "output" in (getattr(owner, "attr", ""), getattr(owner, "id", ""))


def words_of(argument: ast.expr, function: ast.FunctionDef) -> list[str]:
    """A literal, or those that a variable of the function is set to."""
    if isinstance(argument, ast.Constant):
        return [str(argument.value)]
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and ast.unparse(argument) in map(ast.unparse, node.targets):
            found += [each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
    return [str(each) for each in found]


def kinds_of_the_printer(file: SourceFile) -> Iterator[str]:
    """Those that no command names: of progress and errors."""
    for node in file.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_line":
            if isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "kind" and isinstance(value, ast.Constant):
                    yield str(value.value)


def test_every_kind_that_is_printed_is_in_the_table() -> None:
    console = [file for file in production_files() if file.package == "console"]
    found = {(kind, f"{file.path}:{line}") for file in console for kind, line in printed_kinds(file)}
    report(
        "console/kinds.py lacks a kind, or the call does not name one",
        (f"{place}: {kind!r}" for kind, place in sorted(found) if kind not in KINDS),
    )
    printer = next(file for file in console if file.path == PRINTER)
    printed = {kind for kind, _ in found} | set(kinds_of_the_printer(printer))
    report("console/kinds.py has a kind that nothing prints", sorted(KINDS.keys() - printed))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kinds_types_are_there(kind: str) -> None:
    for each in reply_types(kind):
        assert issubclass(each, Reply)
        assert vars(each).get("__doc__"), f"{each} does not say what it is"


def test_scripts_find_every_field() -> None:
    kept, now = load(), fields()
    report(
        "scripts would break: a field keeps its name and its type, a new one comes beside it",
        broken(kept, now),
    )
    report(f"new for scripts; if that is meant: {ACCEPT}", added(kept, now))
