"""One noun, three rooms: a command, what carries it out and its words are in files of one name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from daemon.operations.registry import OPERATIONS
from protocol.commands.base import Command
from tests.tidy.source_tree import ROOT
from tests.tidy.test_tidy import report

# Nouns that other commands of the console ask about, and no operator types.
NOT_TYPED = {"cut"}


def noun_of(thing: Any) -> str:
    """The name of the file that it is in."""
    return str(thing.__module__.rpartition(".")[2])


@pytest.fixture(scope="module")
def commands() -> dict[type[Command], Any]:
    """What carries out each command."""
    import_module("daemon.operations")  # registers them all
    return dict(OPERATIONS)


def test_a_command_is_carried_out_in_the_file_of_its_noun(commands: dict[type[Command], Any]) -> None:
    assert commands
    report(
        "protocol/commands/NOUN.py and daemon/operations/NOUN.py",
        (
            f"{command.__name__}: {noun_of(operation)}"
            for command, operation in commands.items()
            if noun_of(command) != noun_of(operation)
        ),
    )


def test_a_noun_has_a_file_in_the_console(commands: dict[type[Command], Any]) -> None:
    there = {path.stem for path in (ROOT / "console" / "commands").glob("*.py")}
    report("console/commands/NOUN.py", {noun_of(command) for command in commands} - there - NOT_TYPED)
