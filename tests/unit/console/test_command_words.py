"""A command loads what it needs itself; what loads all of them takes longer than most commands do."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer.main

from console.parser import commands_for
from console.words import NOUNS, VERBS, VERBS_BESIDE
from tests.unit.console.conftest import ROOT

# Each takes a while to load, and no script needs it.
FOR_SOME = (
    "rich",
    "pydantic",
    "asyncio",
    "console.images",
    "console.mounts",
    "console.files",
    "protocol.commands.peer",
    "protocol.commands.journal",
)


def verbs_of(word: str | None) -> dict[str, set[str]]:
    """The words that may come first with that one, and of a noun its verbs."""
    commands = typer.main.get_command(commands_for(word)).commands  # type: ignore[attr-defined]
    return {name: set(getattr(each, "commands", ())) for name, each in commands.items()}


def test_every_word_is_known_whatever_comes_first() -> None:
    everything = verbs_of(None)
    assert set(everything) == {*NOUNS, *VERBS}
    assert verbs_of("no-such-word") == everything
    for noun, beside in VERBS_BESIDE.items():
        assert set(beside) < everything[noun]


@pytest.mark.parametrize("word", [*NOUNS, *VERBS])
def test_a_word_alone_has_what_it_has_among_all(word: str) -> None:
    assert verbs_of(word) == {word: verbs_of(None)[word]}


def loaded_by(*words: str) -> list[str]:
    """The modules that a command has loaded when it ends."""
    program = f"import sys; from console.cli import main; main({list(words)}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_script_waits_for_nothing_that_it_does_not_use() -> None:
    loaded = loaded_by("pair", "show", "g")
    assert "console.commands.pair" in loaded
    assert [module for module in loaded if module.startswith(FOR_SOME)] == []


@pytest.mark.parametrize("words", ["volume list", "volume online", "journal show", "site run"])
def test_nor_for_a_noun_s_other_verbs(words: str) -> None:
    noun = words.split()[0]
    loaded = loaded_by(*words.split(), "--help")
    beside = {f"console.commands.{place.rpartition('.')[0]}" for place in VERBS_BESIDE[noun].values()}
    assert f"console.commands.{noun}" in loaded
    assert beside.isdisjoint(loaded)


def test_the_version_needs_neither_a_parser_nor_a_site() -> None:
    loaded = loaded_by("--version")
    assert "console.cli" in loaded
    assert [module for module in loaded if module.startswith(("typer", "zmq", "rich"))] == []
