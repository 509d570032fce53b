"""Debian's Prometheus scrapes both sites; a rule of ours fires on a stalled mirror, and resolves; and what
our dashboard and rules ask for is there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import BAD_REQUEST
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import pytest

from console.demo.host import Host
from tests.support.receivers import fetch, serve_metrics, until
from tests.support.sites import ROOT, Site, free_port, running_sites
from tests.support.tls_doors import with_tls

pytestmark = [pytest.mark.scenario, pytest.mark.slow]
RULES = ROOT / "packaging" / "monitoring" / "farshore.rules.yml"
DASHBOARD = ROOT / "packaging" / "monitoring" / "farshore-dashboard.json"
# So that something is wrong, and somebody told of it.
TOLD = '[alerts]\nmax_backup_age_s = 1\n[notify.log]\nexec = ["true"]\nmin_level = "info"\n'
PATIENCE_S = 60.0
STALLED = "FarshoreMirrorStalled"


@contextmanager
def prometheus(program: str, directory: Path, targets: list[str]) -> Iterator[Callable[[str], Any]]:
    """Runs; what it yields asks its API."""
    # The rules as they are, less their patience.
    rules = RULES.read_text().replace("> 30", "> 1")
    rules = "\n".join("        for: 1s" if "for: " in line else line for line in rules.splitlines())
    (directory / "rules.yml").write_text(rules)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(directory / "rules.yml")],
        "scrape_configs": [{"job_name": "farshore", "static_configs": [{"targets": targets}]}],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            program,
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(what: str) -> Any:
        try:
            return json.loads(fetch(f"http://{address}/api/v1/{what}"))["data"]
        except OSError as error:
            if isinstance(error, HTTPError) and error.code == BAD_REQUEST:
                raise
            return None  # it has not started yet

    try:
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def firing(ask: Callable[[str], Any]) -> set[str]:
    alerts = (ask("alerts") or {"alerts": []})["alerts"]
    return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


def test_a_stalled_mirror_fires_and_resolves(tool: Callable[[str], str]) -> None:
    subprocess.run([tool("promtool"), "check", "rules", str(RULES)], check=True, capture_output=True)
    with running_sites("a", "b") as (a, b):
        addresses = [serve_metrics(site) for site in (a, b)]
        a.create_volume("g/v", "8M")
        a.farshore("pair", "create", "g", "--with", "b")
        a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
        with prometheus(tool("prometheus"), a.directory.parent, addresses) as ask:
            write(a, b"1")
            text = fetch(f"http://{addresses[0]}/metrics")
            assert 'farshore_host_request_seconds_count{group="g",kind="durable",volume="v"} 1.0' in text
            assert 'state="paired"} 1.0' in text
            until(lambda: all_up(ask, 2), PATIENCE_S)
            assert STALLED not in firing(ask)
            os.kill(b.pid, signal.SIGSTOP)
            try:
                write(a, b"2")
                until(lambda: STALLED in firing(ask), PATIENCE_S)
                # A daemon that stands still holds no scraper up for long, and another site not at all.
                assert "farshore_group_lag_bytes" in fetch(f"http://{addresses[0]}/metrics")
            finally:
                os.kill(b.pid, signal.SIGCONT)
            until(lambda: STALLED not in firing(ask), PATIENCE_S)
            until(lambda: all_up(ask, 2), PATIENCE_S)
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


def all_up(ask: Callable[[str], Any], count: int) -> bool:
    targets = (ask("targets") or {"activeTargets": []})["activeTargets"]
    return [each["health"] for each in targets] == ["up"] * count


def panels() -> Iterator[tuple[str, str, list[str]]]:
    """Title, expression with the variables as for "All", and the labels that its legend has, of each."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            expression = re.sub(r"\$(instance|group)\b", ".*", target["expr"])
            assert "$" not in expression, expression
            yield panel["title"], expression, re.findall(r"{{(\w+)}}", target["legendFormat"])


def asked(ask: Callable[[str], Any], expression: str) -> list[dict[str, str]]:
    """Labels of each row that there is now. HTTPError if Prometheus cannot read the expression."""
    rows = ask(f"query?query={quote(expression)}")["result"]
    return [row["metric"] for row in rows]


def test_every_panel_and_rule_asks_for_what_there_is(tool: Callable[[str], str]) -> None:
    with running_sites("a", "b", settings=TOLD) as (a, b):
        with_tls(a)
        addresses = [serve_metrics(site) for site in (a, b)]
        a.create_volume("g/v", "8M")
        a.farshore("pair", "create", "g", "--with", "b")
        a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
        a.farshore("backup", "create", "g")
        b.farshore("drill", "run", "g/v", "--check", "true", "--raw")
        write(a, b"1")
        with prometheus(tool("prometheus"), a.directory.parent, addresses) as ask:
            until(lambda: all_up(ask, 2), PATIENCE_S)
            for title, expression, labels in panels():
                rows = until(partial(asked, ask, expression), PATIENCE_S)
                assert all(set(labels) - {"object", "group"} <= row.keys() for row in rows), (title, rows)
            there = set(ask("label/__name__/values"))
            rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
            assert len(rules) == RULES.read_text().count("- alert:")
            for rule in rules:
                asked(ask, rule["query"])
                used = set(re.findall(r"\bfarshore_[a-z_]+", rule["query"]))
                assert used <= there, (rule["name"], used - there)
                assert rule["health"] in ("ok", "unknown"), rule
            with pytest.raises(HTTPError):
                asked(ask, "rate(farshore_alert")


def write(site: Site, byte: bytes) -> None:
    with Host(site.nbd_socket, "g/v") as host:
        host.write(0, byte * 4096)
        host.flush()
