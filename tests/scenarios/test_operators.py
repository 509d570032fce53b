"""Operators over the network: a key lets in, a role says what for, and both can be taken away at once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from console.client import Client, OperatorKeys
from protocol.commands.volume import VolumeCreate, VolumeList
from protocol.errors import ExitCode, NotAllowed
from tests.conftest import missing
from tests.support.sites import Site, free_port


@pytest.fixture
def endpoint(site: Site) -> str:
    """Where the site takes operators."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    assert site.stop() == 0
    path = site.directory / "site.toml"
    path.write_text(path.read_text() + f'remote_control = "{endpoint}"\n')
    site.start()
    return endpoint


def operator_keys(site: Site) -> tuple[str, Path]:
    """The operator's public key, and the file with both."""
    made = site.json("operator", "key")
    assert site.json("operator", "key") == made
    path = Path(made["key_file"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return made["key"], path


@pytest.mark.slow
def test_a_role_says_what_an_operator_may(site: Site, endpoint: str) -> None:
    key, path = operator_keys(site)
    added = site.json("operator", "add", "ann", key)
    assert added["endpoint"] == endpoint
    sites = path.parent / "sites.toml"
    sites.write_text(
        sites.read_text()
        + f'[sites.far]\ncontrol = "{endpoint}"\nserver_key = "{added["server_key"]}"\n'
        + f'operator_key_file = "{path}"\n'
    )

    def far(*words: str, exit_code: int = 0) -> str:
        done = site.run(*words, "--site", "far", site=False)
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done.stdout + done.stderr

    create = ("volume", "create", "g/v", "--size", "1M")
    far("status")
    said = far(*create, exit_code=ExitCode.NOT_ALLOWED)
    assert "volume.create needs the role operator; ann is viewer" in said

    site.farshore("operator", "remove", "ann")
    far("status", exit_code=ExitCode.NOT_ALLOWED)
    site.farshore("operator", "add", "ann", key, "--role", "operator")
    far(*create)
    for words in (
        ("volume", "delete", "g/v", "--confirm", "g/v"),
        ("operator", "add", "eve", key.swapcase(), "--role", "admin"),
    ):
        assert "needs the role admin" in far(*words, exit_code=ExitCode.NOT_ALLOWED)
    done = [event for event in site.json("events")["events"] if event["by"] == "operator:ann"]
    said_of = [(event["kind"], event["fields"]["command"]) for event in done if "command" in event["fields"]]
    assert said_of == [
        ("command.failed", "volume.create"),
        ("command.done", "volume.create"),
        ("command.failed", "volume.delete"),
        ("command.failed", "operator.add"),
    ]
    assert site.stop() == 0


@pytest.mark.slow
def test_a_drill_that_is_refused_leaves_nothing_behind(site: Site, endpoint: str) -> None:
    """Its clone had been noted already, and who may not make it may not delete it: the note stayed for good,
    and `umount` of it was refused."""
    if os.geteuid() != 0:
        missing("drills need root")
    key, path = operator_keys(site)
    added = site.json("operator", "add", "ann", key)
    site.create_volume("g/v", "1M")
    entry = f'[sites.far]\ncontrol = "{endpoint}"\noperator_key_file = "{path}"\n'
    sites = path.parent / "sites.toml"
    before = sites.read_text()
    sites.write_text(f'{before}{entry}server_key = "{added["server_key"]}"\n')
    (site.directory.parent / "point").mkdir()
    mount = ("mount", "g/v@latest", str(site.directory.parent / "point"), "--writable")
    for words in (("drill", "run", "g", "--raw", "--check", "true"), mount):
        done = site.run(*words, "--site", "far", site=False)
        assert done.returncode == ExitCode.NOT_ALLOWED, done.stdout + done.stderr
        assert "not undone" not in done.stderr
    # A key that the site has no longer: the connection is dropped without a word.
    sites.write_text(f'{before}{entry}server_key = "{key}"\n')
    done = site.run("status", "--site", "far", site=False)
    assert done.returncode == ExitCode.UNREACHABLE
    assert "server_key" in done.stderr
    assert site.stop() == 0


@pytest.mark.slow
def test_who_is_removed_has_no_right_on_an_open_connection(site: Site, endpoint: str) -> None:
    key, path = operator_keys(site)
    added = site.json("operator", "add", "ann", key, "--role", "admin")
    public, secret = path.read_text().split()
    keys = OperatorKeys(
        public_key=public.encode(), secret_key=secret.encode(), server_key=added["server_key"].encode()
    )
    with Client(endpoint, keys=keys) as client:
        client.call(VolumeCreate(group="g", volume="v", size_bytes=1 << 20))
        before = (site.directory / "site.toml").read_text()
        site.farshore("operator", "remove", "ann")
        with pytest.raises(NotAllowed, match="no operator of this site any more"):
            client.call(VolumeList())
    assert "ann" in before
    assert "ann" not in (site.directory / "site.toml").read_text()
    with Client(endpoint, keys=keys) as client, pytest.raises(NotAllowed, match="does not know"):
        client.call(VolumeList())
    for words in (("add", "ann", "short"), ("add", "Ann!", key), ("remove", "ann")):
        assert site.run("operator", *words).returncode in (ExitCode.USAGE, ExitCode.NOT_FOUND)
    assert site.stop() == 0
