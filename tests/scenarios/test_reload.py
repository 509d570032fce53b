"""SIGHUP: site.toml is read again, hosts stay connected; a file that makes no sense changes nothing (C47)."""

from __future__ import annotations

import json
import os
import signal

import pytest

from console.client import Client
from console.demo.host import Host
from protocol.commands.event import EventInfo, Events
from protocol.endpoints import control_endpoint
from protocol.errors import ExitCode
from tests.support.receivers import http_server, until
from tests.support.sites import Site, free_port

HOOK = '[hooks.quiet]\nfreeze = ["true"]\nthaw = ["true"]\n'


def told(site: Site, lines: str) -> EventInfo:
    """Put lines before those of site.toml, tell the daemon, and give the event that says what came of it."""
    path = site.directory / "site.toml"
    path.write_text(lines + path.read_text())  # at the end they could be a table's
    with Client(control_endpoint(str(site.directory))) as client:
        since = client.call(Events(limit=1)).next
        os.kill(site.pid, signal.SIGHUP)
        while True:
            found = client.call(Events(since=since, limit=10, wait_s=20.0))
            assert found.events, "the daemon says nothing of it"
            since = found.next
            for event in found.events:
                if event.kind in ("site.reloaded", "site.not_reloaded"):
                    return event


@pytest.mark.slow
def test_c47_settings_hooks_and_doors_change_while_hosts_stay(site: Site) -> None:
    site.create_volume("g/v", "1M")
    other = site.directory / "other.sock"
    before = (site.directory / "site.toml").read_text()
    with Host(site.nbd_socket, "g/v") as host:
        host.write(0, b"1" * 4096)
        event = told(site, f'nbd = ["unix:{site.nbd_socket}", "unix:{other}"]\nwindow_s = 60.0\n')
        assert (event.kind, event.fields["changed"]) == ("site.reloaded", "nbd window_s")
        with Host(other, "g/v") as second:
            assert second.read(0, 4096) == b"1" * 4096
            (site.directory / "site.toml").write_text(before + HOOK)
            event = told(site, "")
            assert event.fields["changed"] == "hooks nbd window_s"
            # Who came in by a door that is closed now stays.
            second.write(0, b"2" * 4096)
        assert not other.exists()
        assert site.json("backup", "create", "g", "--freeze", "quiet")["cut"]
        assert host.read(0, 4096) == b"2" * 4096

        for lines, why in (
            ("no_such_key = 1\n", "no_such_key"),
            (f'nbd = ["unix:{site.nbd_socket}", "unix:/no/such/place"]\n', "/no/such/place"),
        ):
            (site.directory / "site.toml").write_text(before + HOOK)
            event = told(site, lines)
            assert (event.kind, event.level) == ("site.not_reloaded", "warning")
            assert why in event.message
        (site.directory / "site.toml").write_text(before + HOOK)
        event = told(site, "throttle = true\n")
        assert event.fields == {"wait_for_a_restart": "throttle"}
        host.write(4096, b"3" * 4096)
    with Host(site.nbd_socket, "g/v") as again:
        assert again.read(4096, 4096) == b"3" * 4096
    assert site.stop() == 0


@pytest.mark.slow
def test_limits_of_alerts_and_who_is_told_change_and_the_rest_is_named(site: Site) -> None:
    site.create_volume("g/v", "1M")
    before = (site.directory / "site.toml").read_text()
    with http_server() as web:

        def heard() -> list[tuple[str, bool]]:
            events = [json.loads(each.body)["data"] for each in web.requests]
            return [(event["kind"], event["resolved"]) for event in events if event["kind"] == "backup.old"]

        tables = f'[alerts]\nmax_backup_age_s = 60\n[notify.web]\nwebhook = "{web.url}/hook"\n'
        (site.directory / "site.toml").write_text(before + tables)
        event = told(site, f'metrics = "127.0.0.1:{free_port()}"\n')
        assert event.fields == {"changed": "alerts notify", "wait_for_a_restart": "metrics"}
        until(lambda: heard() == [("backup.old", False)], 60.0)
        site.farshore("notify", "test", "web")
        (site.directory / "site.toml").write_text(before + tables.replace("= 60", "= 0"))
        assert told(site, "").fields["changed"] == "alerts"
        until(lambda: heard() == [("backup.old", False), ("backup.old", True)], 60.0)
        (site.directory / "site.toml").write_text(before)
        assert told(site, "").fields["changed"] == "notify"
        site.farshore("notify", "test", "web", exit_code=int(ExitCode.NOT_FOUND))
    assert site.stop() == 0
