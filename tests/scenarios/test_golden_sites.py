"""Two data directories that commit 0fa55f3 wrote are read, served, paired and written on by this version."""

from __future__ import annotations

import json

import pytest

from tests.golden.sites import FACTS, digest, facts, unpacked, write
from tests.support.oracle import content
from tests.support.pairs import same_at_the_cut
from tests.support.sites import Site, short_directory

pytestmark = pytest.mark.usefixtures("as_installed")


def test_sites_of_the_version_before_are_read_and_go_on() -> None:
    parent = short_directory()
    a, b = Site(parent / "a", "a"), Site(parent / "b", "b")
    unpacked(a, b)
    expected = json.loads(FACTS.read_text())
    assert len(expected["a"]["contents"]) == len(expected["b"]["contents"]) == 6
    try:
        for site in (a, b):
            site.start()
        for site in (a, b):
            now, before = facts(site), expected[site.name]
            count = len(before["frames"])
            assert now["frames"][:count] == before["frames"]
            assert {export: digest(site, export) for export in before["contents"]} == before["contents"]
            for key in ("backups", "clones"):
                assert now[key] == before[key]
            assert [row["volume"] for row in now["volumes"]] == [row["volume"] for row in before["volumes"]]
        a.farshore("wait", "vm1", "--state", "paired", "--timeout", "30")
        assert a.json("pair", "show", "vm1")["mode"] == "sync-strict"
        write(a, "root", 7, "N")
        same_at_the_cut(a, b, "vm1", ("root", "log"))
        assert content(b, "vm1/root@two")[:4096] == b"A" * 4096
        for site in (a, b):
            assert site.json("verify", "vm1", "--deep")["ok"]
            assert site.stop() == 0
            site.check_log()
    finally:
        for site in (a, b):
            site.kill()
