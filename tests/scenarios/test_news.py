"""What happens at one site is an event at the other one, too: at its level, with its fields, and once,
whatever becomes of the link and of the two daemons meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from console.demo.host import Host
from tests.support.clients import MIB
from tests.support.news import PATIENCE_S, events, repeated, told
from tests.support.proxy import Proxy, proxied
from tests.support.receivers import fetch, serve_metrics, until
from tests.support.sites import Site, running_sites

pytestmark = [pytest.mark.slow]

HOOKS = """
[hooks.hangs]
freeze = ["false"]
thaw = ["true"]
"""
FULL_LIMIT = "12M"


def limit(site: Site, size: str) -> None:
    """Let the site's journals be of at most this size, from now on."""
    config = site.directory / "site.toml"
    text = re.sub(r"^journal_limit_bytes = .*\n", "", config.read_text(), flags=re.MULTILINE)
    config.write_text(f'journal_limit_bytes = "{size}"\n{text}')
    if site.process is not None:
        os.kill(site.pid, signal.SIGHUP)


def fail_a_hook(site: Site) -> None:
    """A backup, of a host that cannot be held still."""
    site.run("backup", "create", "g", "--freeze", "hangs")


@contextmanager
def two_links(settings: str = HOOKS) -> Iterator[tuple[Site, Site, tuple[Proxy, Proxy]]]:
    """`a` writes `g`, paired with `b`; each reaches the other by a link that can be cut."""
    with running_sites("a", "b", settings=settings) as (a, b), proxied(a, b) as there, proxied(b, a) as back:
        a.create_volume("g/v", "16M")
        a.farshore("pair", "create", "g", "--with", "b")
        a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
        with Host(a.nbd_socket, "g/v") as host:
            host.write_all((at, os.urandom(MIB)) for at in range(0, 10 * MIB, MIB))
            host.flush()
        a.farshore("wait", "g", "--timeout", "60")
        yield a, b, (there, back)
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


def test_what_happens_at_either_site_is_an_event_at_both_and_so_is_its_end() -> None:
    with two_links() as (a, b, _):
        fail_a_hook(a)
        here, there = told(a, "hook.failed", None, 1), told(b, "hook.failed", "a", 1)
        for event in (here, there):
            assert (event["level"], event["group"], event["object"]) == ("warning", "g", "hangs")
            assert event["fields"]["timed_out"] is False
        assert there["fields"]["happened"] == here["time"]
        limit(b, FULL_LIMIT)
        for event in (told(b, "journal.filling", None, 1), told(a, "journal.filling", "b", 1)):
            assert (event["level"], event["group"], event["resolved"]) == ("warning", "g", False)
            assert event["fields"]["stage"] in ("warning", "detach", "full")
        limit(b, "1G")
        for event in (told(b, "journal.filling", None, 2), told(a, "journal.filling", "b", 2)):
            assert (event["level"], event["resolved"], event["fields"]["resolved"]) == ("info", True, True)
            assert isinstance(event["fields"]["lasted_s"], float)


def test_what_happened_while_the_link_was_cut_comes_once_it_is_back() -> None:
    with two_links() as (a, b, links):
        for link in links:
            link.cut()
        for site, peer in ((a, "b"), (b, "a")):
            event = told(site, "peer.silent", None, 1)
            assert (event["level"], event["object"]) == ("error", peer)
        fail_a_hook(a)
        limit(b, FULL_LIMIT)
        told(b, "journal.filling", None, 1)
        assert not events(b, "hook.failed", "a")
        assert not events(a, "journal.filling", "b")
        for link in links:
            link.heal()
        told(a, "journal.filling", "b", 1)
        told(b, "hook.failed", "a", 1)
        for site in (a, b):
            assert told(site, "peer.silent", None, 2)["resolved"]
        limit(b, "1G")
        assert told(a, "journal.filling", "b", 2)["resolved"]
        assert not any(repeated(site, "journal.filling", "hook.failed", "peer.silent") for site in (a, b))


def test_whoever_restarts_nothing_is_told_twice_and_nothing_is_left_out() -> None:
    with two_links() as (a, b, _):
        limit(b, FULL_LIMIT)
        told(a, "journal.filling", "b", 1)
        # Over a restart of the site that is told: what ended while it was down, and nothing again.
        a.stop()
        limit(b, "1G")
        told(b, "journal.filling", None, 2)
        a.start()
        assert told(a, "journal.filling", "b", 2)["resolved"]
        # Over one of the site that tells: what stands is not said again, and that it ended meanwhile is.
        limit(b, FULL_LIMIT)
        told(a, "journal.filling", "b", 3)
        for how in (b.stop, b.kill):
            how()
            b.start()
            fail_a_hook(a)  # another one to wait for
            told(b, "hook.failed", "a", 1 if how == b.stop else 2)
        assert len(events(b, "journal.filling", None)) == 3
        b.stop()
        limit(b, "1G")
        b.start()
        assert told(b, "journal.filling", None, 4)["resolved"]
        assert told(a, "journal.filling", "b", 4)["resolved"]
        assert not repeated(a, "journal.filling")


def test_what_stands_at_a_restart_is_not_said_again_and_its_end_is() -> None:
    with two_links() as (a, b, _):
        b.kill()
        assert told(a, "peer.silent", None, 1)["level"] == "error"
        a.stop()
        a.start()
        metrics = f"http://{serve_metrics(a)}/metrics"
        until(lambda: 'kind="peer.silent",object="b"} 1.0' in figures(metrics), PATIENCE_S)
        a.stop()
        say(a, "peer.clock_skew", "b")
        a.start()
        until(lambda: 'kind="peer.clock_skew",object="b"} 1.0' in figures(metrics), PATIENCE_S)
        b.start()
        over = told(a, "peer.silent", None, 2)
        assert (over["resolved"], over["fields"]["lasted_s"] > 0) == (True, True)
        # The clocks are compared a few seconds later, and are right.
        right = told(a, "peer.clock_right", None, 1)
        assert (right["level"], right["resolved"], right["object"]) == ("info", True, "b")
        assert len(events(a, "peer.clock_skew", None)) == 1
        until(lambda: "peer.clock_skew" not in (figures(metrics) or "peer.clock_skew"), PATIENCE_S)


def figures(url: str) -> str:
    """What a site's metrics are; nothing until they are served."""
    try:
        return fetch(url)
    except OSError:
        return ""


def say(site: Site, kind: str, about: str) -> None:
    """As if the daemon, which does not run, had said this last."""
    newest = max((site.directory / "events").iterdir())
    last = json.loads(newest.read_text().splitlines()[-1])
    said = last | {"seq": last["seq"] + 1, "kind": kind, "object": about, "level": "warning"}
    with newest.open("a") as file:
        file.write(json.dumps(said) + "\n")
