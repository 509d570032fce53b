"""Being told: what happens at either site is an event at both, and a monitor sees it."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from tests.support.receivers import (
    HttpServer,
    Request,
    fetch,
    http_server,
    mail_server,
    serve_metrics,
    until,
)
from tests.support.sites import Site, free_port, running_sites

pytestmark = [pytest.mark.scenario]

TOLD_WITHIN_S = 10.0


def events(site: Site, kind: str, **fields: Any) -> list[dict[str, Any]]:
    """Those of a kind that have these."""
    found = site.json("events", "--limit", "1000")["events"]
    return [e for e in found if e["kind"] == kind and all(e[key] == fields[key] for key in fields)]


def paired(a: Site, b: Site) -> None:
    """`g` written at `a`, paired."""
    a.create_volume("g/v", "8M")
    a.farshore("pair", "create", "g", "--with", "b")
    a.farshore("wait", "g", "--state", "paired", "--timeout", "30")


def test_c51_kill_9_of_the_primary_is_told_within_ten_seconds() -> None:
    """An event, a metric, a webhook, a mail and `check`; and all of them again once it is back."""
    with http_server() as web, mail_server() as mail:
        settings = f"""
[notify.web]
webhook = "{web.url}/hook"
secret = "k3y"
[notify.mail]
smtp = "{mail.url}"
sender = "farshore@b.example"
to = ["ops@b.example"]
events = ["peer.*"]
[notify.broken]
webhook = "http://127.0.0.1:{free_port()}/n0where"
[notify.dog]
ping = "{web.url}/dog"
every_s = 1
"""
        with running_sites("a", "b", settings=settings) as (a, b):
            metrics = f"http://{serve_metrics(b)}/metrics"
            paired(a, b)
            assert 'farshore_peer_connected{peer="a"} 1.0' in fetch(metrics)
            until(lambda: b.run("check", "g", "--max-lag", "60s").returncode == 0, 30.0)
            b.farshore("notify", "test", "web")
            assert "n0where" not in b.farshore("notify", "test", "broken", exit_code=1)
            until(lambda: [each for each in web.requests if each.path == "/dog"])
            a.kill()
            killed = time.monotonic()
            silent = [("b", "peer.silent", "a", False)]
            until(lambda: told(web) & set(silent), TOLD_WITHIN_S)
            until(lambda: mail.messages, TOLD_WITHIN_S)
            (event,) = events(b, "peer.silent", level="error")
            assert 'farshore_alert{group="",kind="peer.silent",object="a"} 1.0' in fetch(metrics)
            assert time.monotonic() - killed < TOLD_WITHIN_S
            assert (event["object"], event["resolved"], event["fields"]["pairs"]) == ("a", False, 1)
            assert mail.messages[0]["Subject"] == "[farshore b] ERROR peer.silent a"
            checked = b.run("check", "--nagios")
            assert (checked.returncode, checked.stdout[:17]) == (2, "FARSHORE CRITICAL"), checked.stdout
            assert all(signed(each) for each in web.requests if each.path == "/hook")
            a.start()
            until(lambda: told(web) & {("b", "peer.silent", "a", True)}, 30.0)
            (back,) = events(b, "peer.silent", resolved=True)
            assert (back["level"], back["fields"]["lasted_s"] > 0) == ("info", True)
            until(lambda: b.run("check", "g").returncode == 0, 30.0)
            rows = {each["name"]: each for each in b.json("notify", "list")["notifications"]}
            assert (rows["broken"]["sent"], rows["web"]["error"]) == (0, None)
            for site in (a, b):
                assert site.stop() == 0
                site.check_log()
                text = site.log_path.read_text()
                assert not any(secret in text for secret in ("k3y", "n0where"))


def told(web: HttpServer) -> set[tuple[str, str, str, bool]]:
    """Site, kind, object and whether it is over, of each event that came."""
    lines = [json.loads(each.body) for each in web.requests if each.path == "/hook"]
    return {(n["site"], n["data"]["kind"], n["data"]["object"], n["data"]["resolved"]) for n in lines}


def signed(request: Request) -> bool:
    """Whether its signature is right."""
    digest = hmac.new(b"k3y", request.body, hashlib.sha256).hexdigest()
    return request.headers["X-Farshore-Signature"] == f"sha256={digest}"
