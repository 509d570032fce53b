"""Words that are empty, as of variables that are not set, are not taken for options that were left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.errors import ExitCode
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import StubSite


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["volume", "create", "vm1/root", "--size", "1M", "--with", ""], "--with"),
        (["volume", "create", "vm1/root", "--size", "1M", "--with="], "--with"),
        (["restore", "volume", "vm1/root", "--at", "b", "--confirm", "vm1/root", "--stop", ""], "--stop"),
        (["drill", "run", "vm1", "--check", ""], "--check"),
        (["verify", "vm1", ""], "vm1"),
        (["site", "init", ""], "init"),
        ([""], "farshore"),
    ],
)
def test_an_empty_word_is_refused(
    farshore: Callable[..., Ran], stub: StubSite, words: list[str], named: str
) -> None:
    done = farshore(*words, "--site", str(stub.directory))
    assert done.code == ExitCode.USAGE, done
    assert named in done.err
    assert "is a variable not set?" in done.err
    assert stub.asked == []


@pytest.mark.parametrize("words", [["--site", ""], ["--site="]])
def test_no_other_site_is_meant_by_an_empty_one(
    farshore: Callable[..., Ran], stub: StubSite, words: list[str]
) -> None:
    done = farshore("status", *words)
    assert done.code == ExitCode.USAGE
    assert "--site" in done.err
    assert "is a variable not set?" in done.err
    assert stub.asked == []


def test_an_empty_name_confirms_nothing(farshore: Callable[..., Ran], stub: StubSite) -> None:
    done = farshore("pair", "delete", "vm1", "--confirm", "", f"--site={stub.directory}")
    assert done.code == ExitCode.UNSAFE


@pytest.mark.parametrize("words", [[], ["volume"], ["restore"], ["site", "cert"]])
def test_a_line_without_a_command_is_an_error_in_json(farshore: Callable[..., Ran], words: list[str]) -> None:
    done = farshore(*words, "--json")
    assert done.code == ExitCode.USAGE
    assert '"kind":"error"' in done.out
