"""An operator's own key, and what is asked of the site to let one in."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from console.client import generate_operator_keys
from protocol.commands.operator import OperatorAdd, OperatorInfo, OperatorListReply
from protocol.errors import ExitCode
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import StubSite

Run = Callable[..., Ran]
KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def test_a_key_is_made_once_and_its_file_is_the_users_alone(home: Path, farshore: Run) -> None:
    file = home / "config" / "farshore" / "operator.key"
    first, again = farshore("operator", "key"), farshore("operator", "key")
    assert (first.code, again.code) == (ExitCode.OK, ExitCode.OK)
    assert first.out == again.out
    public, secret = file.read_text().split()
    assert first.out.split() == [public]
    assert len(secret) == len(public) == 40
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_a_file_of_something_else_is_left_as_it_is(home: Path, farshore: Run) -> None:
    file = home / "notes"
    file.write_text("precious")
    ran = farshore("operator", "key", "--file", str(file))
    assert ran.code == ExitCode.USAGE
    assert "holds no key pair" in ran.err
    assert file.read_text() == "precious"


def test_a_key_is_never_taken_for_an_option() -> None:
    """One of 85 would begin with a hyphen."""
    assert not any(generate_operator_keys()[0].startswith("-") for _ in range(2000))


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_an_operator_is_added_with_a_role(role: str, stub: StubSite, farshore: Run) -> None:
    row = OperatorInfo(operator="ann", role=role, key=KEY)
    stub.replies["operator.add"] = OperatorListReply(
        endpoint="tcp://lon.example:7000", server_key=KEY, operators=[row]
    )
    ran = farshore("--site", str(stub.directory), "operator", "add", "ann", KEY, "--role", role)
    assert ran.code == ExitCode.OK, ran.err
    assert ran.out.startswith(f"ann is {role} of lon\n")
    (asked,) = stub.asked
    assert isinstance(asked, OperatorAdd)
    assert (asked.operator, asked.key, asked.role) == ("ann", KEY, role)


def test_an_unknown_role_is_refused_before_anything_is_asked(stub: StubSite, farshore: Run) -> None:
    ran = farshore("--site", str(stub.directory), "operator", "add", "ann", KEY, "--role", "king")
    assert ran.code == ExitCode.USAGE
    assert "--role" in ran.err
    assert stub.asked == []


def test_roles_are_completed(home: Path, farshore: Run) -> None:
    ran = farshore("complete", "--", "operator", "add", "ann", KEY, "--role", "")
    assert ran.out.splitlines() == ["admin", "operator", "viewer"]
