"""`did you mean`: for people, by one more request at most; scripts are told what they always were."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from console.suggestions import nearest
from protocol.commands.base import command_name
from protocol.errors import ExitCode, FarshoreError, NotFound, WrongState
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import StubSite

Run = Callable[..., Ran]


def refusing(message: str) -> Callable[[object], NoReturn]:
    def refuse(_: object) -> NoReturn:
        raise NotFound(message, subject="it", next_step="`farshore status`")

    return refuse


CASES = [
    ("pair show vm", "pair.show", "there is no group vm here", "vm1", "pair show vm1"),
    (
        "volume show vm1/rot",
        "volume.show",
        "there is no volume vm1/rot here",
        "vm1/root",
        "volume show vm1/root",
    ),
    (
        "restore group vm1 --at nightli --confirm vm1",
        "restore.group",
        "there is no backup 'nightli' of vm1 here",
        "nightly",
        "restore group vm1 --at nightly",
    ),
    ("peer remove pra", "peer.remove", "pra is not a peer of this site", "par", "peer remove par"),
]


@pytest.mark.parametrize(("line", "asks", "message", "near", "instead"), CASES)
def test_the_nearest_name_is_asked_for(
    line: str, asks: str, message: str, near: str, instead: str, stub: StubSite, farshore: Run
) -> None:
    stub.replies[asks] = refusing(message)
    ran = farshore(*line.split(), "--site", str(stub.directory))
    assert ran.code == ExitCode.NOT_FOUND
    assert f"error: {message}; did you mean {near}?\n" in ran.err
    assert f"next: farshore --site {stub.directory} {instead}\n" in ran.err
    assert len(stub.asked) == 2


@pytest.mark.parametrize(("line", "asks", "message", "near", "instead"), CASES)
def test_scripts_are_told_what_they_were(
    line: str, asks: str, message: str, near: str, instead: str, stub: StubSite, farshore: Run
) -> None:
    stub.replies[asks] = refusing(message)
    ran = farshore(*line.split(), "--json", "--site", str(stub.directory))
    assert ran.code == ExitCode.NOT_FOUND
    assert ran.json[-1]["errors"][0]["message"] == message
    assert [command_name(each) for each in stub.asked] == [asks]


def test_a_site_that_does_not_answer_that_changes_nothing(stub: StubSite, farshore: Run) -> None:
    def refuse(_: object) -> NoReturn:
        raise WrongState("not now")

    stub.replies["pair.show"] = refusing("there is no group vm here")
    stub.replies["group.list"] = refuse
    ran = farshore("pair", "show", "vm", "--site", str(stub.directory))
    assert ran.code == ExitCode.NOT_FOUND
    assert "error: there is no group vm here\n" in ran.err


def test_other_errors_ask_for_nothing(stub: StubSite, farshore: Run) -> None:
    def refuse(_: object) -> NoReturn:
        raise FarshoreError("there is no group vm here")

    stub.replies["pair.show"] = refuse
    assert farshore("pair", "show", "vm", "--site", str(stub.directory)).code == ExitCode.FAILED
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    ("line", "near", "instead"),
    [
        ("statsu vm1", "status", "farshore status vm1"),
        ("snapshto create vm1", "snapshot", "farshore snapshot create vm1"),
        ("volume lst", "list", "farshore volume list"),
        ("backup creat vm1 --label x", "create", "farshore backup create vm1 --label x"),
        ("takover vm1 --confirm vm1", "takeover", "farshore takeover vm1"),
    ],
)
def test_the_nearest_command(line: str, near: str, instead: str, farshore: Run, home: object) -> None:
    ran = farshore(*line.split())
    assert ran.code == ExitCode.USAGE
    assert f"did you mean {near}?" in ran.err
    assert f"next: {instead}\n" in ran.err
    assert farshore(*line.split(), "--json").code == ExitCode.USAGE


def test_what_is_like_nothing() -> None:
    assert nearest("xyz", ["vm1", "db"]) is None
    assert nearest("production-database", ["prod"]) == "prod"
    assert nearest("vm", []) is None
