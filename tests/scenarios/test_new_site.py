"""Two sites in few words: what `site init` prints is all that the other one's takes."""

from __future__ import annotations

import json

import pytest

from protocol.errors import ExitCode
from tests.support.sites import CommandFailed, Site, short_directory

pytestmark = pytest.mark.usefixtures("as_installed")


def made_of(site: Site, *options: str) -> dict[str, str]:
    """Make it; the reply."""
    endpoint = f"127.0.0.1:{site.replication_port}"
    words = ("site", "init", str(site.directory), "--name", site.name, "--replication", endpoint, *options)
    data: dict[str, str] = json.loads(site.farshore(*words, "--json", site=False))["data"]
    return data


def test_two_sites_know_each_other_by_two_tokens() -> None:
    parent = short_directory()
    a, b = Site(parent / "a", "a"), Site(parent / "b", "b")
    try:
        made = made_of(a)
        joined = made_of(b, "--pair", made["token"])
        assert (joined["peer"], joined["peer_fingerprint"]) == ("a", made["fingerprint"])
        for site in (a, b):
            site.start()
        a.farshore("peer", "add", joined["token"])
        a.create_volume("g/v", "8M")
        a.farshore("pair", "create", "g", "--with", "b")
        a.farshore("wait", "g", "--state", "paired", "--timeout", "30")
        assert a.json("site", "token")["token"] == made["token"]
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()
    finally:
        a.kill()
        b.kill()


def test_a_bad_token_makes_no_site() -> None:
    parent = short_directory()
    one, other = Site(parent / "a", "a"), Site(parent / "b", "a")
    token = made_of(one)["token"]
    for bad in ("farshore1.abc", "nonsense", token):  # the last is of a site of the same name
        with pytest.raises(CommandFailed) as caught:
            other.init("--pair", bad)
        assert caught.value.exit_code == ExitCode.USAGE
        assert not other.directory.exists()
