"""Peers and operators: addresses that nobody can dial, and words that are taken for what they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from protocol.commands.operator import OperatorAdd, OperatorInfo, OperatorListReply
from protocol.errors import ExitCode
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import REPLIES, StubSite

Run = Callable[..., Ran]
KEY = "-q:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def operators(endpoint: str) -> OperatorListReply:
    return OperatorListReply(
        endpoint=endpoint,
        server_key=KEY,
        operators=[OperatorInfo(operator="ann", role="viewer", key=KEY)],
    )


@pytest.mark.parametrize("key", [KEY, "-" + KEY[:-1]])
def test_an_operators_key_may_begin_with_a_hyphen(stub: StubSite, farshore: Run, key: str) -> None:
    stub.replies["operator.add"] = operators("tcp://10.0.0.1:7481")
    ran = farshore("operator", "add", "ann", key, "--role", "operator", "--site", str(stub.directory))
    assert ran.code == 0, ran.err
    assert stub.asked == [OperatorAdd(operator="ann", key=key, role="operator")]
    assert 'control = "tcp://10.0.0.1:7481"' in ran.err


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "[::]"])
def test_operators_are_not_sent_to_every_address(stub: StubSite, farshore: Run, host: str) -> None:
    stub.replies["operator.add"] = operators(f"tcp://{host}:7481")
    ran = farshore("operator", "add", "ann", KEY, "--site", str(stub.directory))
    assert 'control = "tcp://HOST:7481"' in ran.err
    assert "name or address" in ran.err


def test_a_site_that_listens_on_every_address_says_what_to_set(
    stub: StubSite, farshore: Run, home: Path
) -> None:
    token = REPLIES["site.token"]
    stub.replies["site.token"] = structs.replace(token, replication="tcp://0.0.0.0:7401")
    assert 'advertise = "tcp://HOST:PORT"' in farshore("site", "token", "--site", str(stub.directory)).err
    stub.replies["site.token"] = structs.replace(token, replication="tcp://10.0.0.1:7401")
    assert "advertise" not in farshore("site", "token", "--site", str(stub.directory)).err
    words = ("site", "init", str(home / "new"), "--name", "new", "--replication", "tcp://*:7401")
    assert "advertise" in farshore(*words).err


def test_a_name_that_means_another_site_now_is_said(farshore: Run, home: Path) -> None:
    """A second site of a name took it, without a word: commands went there."""
    words = ("site", "init", "--name", "lon")
    assert "until now" not in farshore(*words, str(home / "one")).err
    said = farshore(*words, str(home / "two")).err
    assert f"farshore site set lon --directory {home / 'one'}" in said
    assert farshore("site", "set", "lon", "--directory", str(home / "one")).code == 0
    shutil.rmtree(home / "one")
    assert "until now" not in farshore(*words, str(home / "one")).err


def test_a_peer_is_not_dialled_at_every_address(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    for endpoint in ("tcp://0.0.0.0:7401", "tcp://*:7401", "tcp://par:0"):
        ran = farshore("peer", "set", "par", "--endpoint", endpoint, *site)
        assert ran.code == ExitCode.USAGE
        assert "next:" in ran.err
    assert stub.asked == []
