"""Commands that are printed can be pasted: each that a text of ours has is one that the parser takes.

A text is either a command and nothing else, or has its commands in backticks; no other words can be taken
for part of one. Values that are filled in when it is printed are a name here, and words in capitals are for
the reader to fill in. So every template is tried, also those of errors that no test can provoke;
`tests/scenarios/test_printed_commands.py` pastes what real runs print.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import typer.main

from console.cli import take_options
from console.guesses import guessed
from console.parser import commands_for
from console.words import NOUNS, VERBS
from tests.tidy.source_tree import ROOT

PRODUCTION = ("console", "daemon", "engine", "protocol", "site_primary", "site_secondary")
# What a value that is filled in stands for: a name of any kind.
NAME = "vm1"
_OURS = re.compile(r"\bfarshore (?P<word>--\w+|[a-z]+)")
_IN_BACKTICKS = re.compile(r"`([^`]*)`")
# Texts of the parser's own help and documentation, and lines that are cut by whoever reads them.
NOT_PRINTED_AS_COMMANDS = {
    "console/pasted.py",
    "console/parser.py",
    "console/demo/run.py",
    "daemon/__main__.py",
    # Reports: what a file says to whoever reads it, at no site.
    "protocol/drill_report_html.py",
    "protocol/drill_report_text.py",
}


@dataclass(frozen=True)
class Printed:
    """A text that has a command."""

    place: str
    text: str


def texts() -> Iterator[Printed]:
    """Every string of production code that is no docstring and has a command of ours."""
    for package in PRODUCTION:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name in NOT_PRINTED_AS_COMMANDS:
                continue
            source = path.read_text(encoding="utf-8")
            if "farshore" not in source:
                continue  # every worker reads all of this when it collects
            nodes = list(ast.walk(ast.parse(source)))
            passed_over = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            for node in nodes:
                if isinstance(node, ast.JoinedStr):
                    passed_over.update(map(id, node.values))
            for node in nodes:
                if not isinstance(node, ast.Constant | ast.JoinedStr) or id(node) in passed_over:
                    continue
                text = _text(node)
                found = _OURS.search(text)
                if found and (found["word"] in NOUNS or found["word"] in VERBS):
                    line = getattr(node, "lineno", 0)
                    yield Printed(f"{name}:{line}", text)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _text(part) if isinstance(part, ast.Constant) else _stand_in(part) for part in node.values
        )
    return ""


def _stand_in(value: ast.AST) -> str:
    """What is filled in is a name, but for numbers of jobs and words that are commands themselves."""
    said = ast.unparse(value.value) if isinstance(value, ast.FormattedValue) else ""
    if said.endswith(("number", ".job")):
        return "1"
    return {"noun": "group", "verb": "replace"}.get(said, NAME)


def commands_in(text: str) -> list[str]:
    """The commands of a text. AssertionError where one stands among other words."""
    commands = []
    for line in text.split("\n"):
        beside = _IN_BACKTICKS.sub("", line)
        if (found := _OURS.search(beside)) and (found["word"] in NOUNS or found["word"] in VERBS):
            alone = re.sub(r"^(next|undo): ", "", line)
            assert alone.startswith("farshore "), f"neither alone nor in backticks: {line!r}"
            commands.append(alone)
        commands += [each for each in _IN_BACKTICKS.findall(line) if each.startswith("farshore ")]
    return commands


@cache
def _parser(word: str) -> Any:
    return typer.main.get_command(commands_for(word))


def take(command: str) -> None:
    """Parse it, and run nothing. Raises what the parser raises."""
    assert not set(command) & set("|;&<>$()"), f"a shell takes part of it: {command!r}"
    _, words = take_options(shlex.split(command)[1:])
    words = guessed(words)
    below, context = _parser(words[0]), None
    while hasattr(below, "commands"):
        context = below.make_context(str(below.name), [], parent=context, resilient_parsing=True)
        _, below, words = below.resolve_command(context, words)
    with below.make_context(str(below.name), list(words), parent=context):
        pass


FOUND = list(texts())


def test_there_are_many() -> None:
    assert len(FOUND) > 100


@pytest.mark.parametrize("printed", FOUND, ids=lambda each: each.place)
def test_the_parser_takes_it(printed: Printed) -> None:
    for command in commands_in(printed.text):
        if "--help" in command or command in ("farshore --version",):
            continue
        try:
            take(command)
        except Exception as error:
            said = getattr(error, "message", "") or str(error)
            pytest.fail(f"{command}: {type(error).__name__}: {said}", pytrace=False)
