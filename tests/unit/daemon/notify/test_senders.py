"""One notification each way, to real servers and commands."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon.notify.config import NotifyConfig, check_notify
from daemon.notify.messages import Notice
from daemon.notify.senders import mail_of
from daemon.notify.worker import attempt_send, wants
from protocol.commands.event import EventInfo
from protocol.errors import UsageError
from tests.support.receivers import http_server, mail_server
from tests.support.sites import free_port

EVENT = EventInfo(
    seq=9,
    time="2026-07-03T00:45:00Z",
    level="error",
    kind="peer.silent",
    group=None,
    object="par",
    position="",
    message="silent_s 7.0",
    fields={"silent_s": 7.0},
)
MAIL: dict[str, Any] = {"sender": "farshore@lon.example", "to": ("ops@lon.example",)}


def notice(kind: str = "peer.silent", **changes: Any) -> Notice:
    weight = changes.pop("weight", "error")
    fields = {name: getattr(EVENT, name) for name in EVENT.__struct_fields__}
    return Notice(event=EventInfo(**fields | {"kind": kind} | changes), weight=weight)


def test_a_webhook_gets_the_event_signed(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    key.chmod(0o600)
    with http_server() as server:
        target = NotifyConfig(webhook=f"{server.url}/hook?x=1", secret_file=str(key))
        assert attempt_send(target, "lon", EVENT) == ("", False)
        (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/hook?x=1")
    said = json.loads(request.body)
    assert (said["kind"], said["site"], said["data"]["fields"]) == ("event", "lon", {"silent_s": 7.0})
    digest = hmac.new(b"s3cret", request.body, hashlib.sha256).hexdigest()
    assert request.headers["X-Farshore-Signature"] == f"sha256={digest}"


@pytest.mark.parametrize(("status", "final"), [(500, False), (404, False), (429, False), (400, True)])
def test_only_what_is_wrong_for_good_is_given_up(status: int, final: bool) -> None:
    with http_server() as server:
        server.statuses.append(status)
        error, given_up = attempt_send(NotifyConfig(webhook=server.url), "lon", EVENT)
    assert (str(status) in error, given_up) == (True, final)


def test_no_error_says_a_secret(tmp_path: Path) -> None:
    url = f"http://user:pw@127.0.0.1:{free_port()}/services/T0P/5ECRET"
    error, _ = attempt_send(NotifyConfig(webhook=url, secret="5ECRET"), "lon", EVENT)
    assert error
    assert not any(word in error for word in ("5ECRET", "pw", "T0P"))
    error, _ = attempt_send(NotifyConfig(webhook=url, secret_file=str(tmp_path / "none")), "lon", EVENT)
    assert "FileNotFoundError" in error


def test_a_mail_arrives() -> None:
    with mail_server() as server:
        assert attempt_send(NotifyConfig(smtp=server.url, **MAIL), "lon", EVENT) == ("", False)
        (message,) = server.messages
    assert message["Subject"] == "[farshore lon] ERROR peer.silent par"
    assert message["To"] == "ops@lon.example"
    assert "silent_s 7.0" in message.get_payload()


def test_what_a_peer_says_makes_no_header() -> None:
    forged = notice(object="x\r\nBcc: all@example.org").event
    message = mail_of(NotifyConfig(smtp="smtp://h", **MAIL), "lon", forged)
    assert "Bcc" not in message
    assert "\n" not in message["Subject"]


def test_a_command_gets_the_event(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = "import os,sys;open(sys.argv[1],'w').write(sys.stdin.read()+os.environ['FARSHORE_EVENT'])"
    target = NotifyConfig(exec=(sys.executable, "-c", script, str(told)))
    assert attempt_send(target, "lon", EVENT) == ("", False)
    line, kind = told.read_text().splitlines()
    assert (json.loads(line)["data"]["object"], kind) == ("par", "peer.silent")


def test_a_command_that_fails_or_hangs_is_an_error() -> None:
    assert attempt_send(NotifyConfig(exec=("false",)), "lon", EVENT)[0] == "false ended with 1"
    hangs = NotifyConfig(exec=("sleep", "60"), timeout_s=0.2)
    assert "did not end" in attempt_send(hangs, "lon", EVENT)[0]
    assert "FileNotFoundError" in attempt_send(NotifyConfig(exec=("/no/such",)), "lon", EVENT)[0]


@pytest.mark.parametrize(
    ("target", "chosen", "wanted"),
    [
        ({}, notice(), True),
        ({}, notice(weight="info", level="info"), False),
        ({"min_level": "error"}, notice(weight="warning"), False),
        ({}, notice(level="info", resolved=True), True),
        ({"events": ("peer.*",)}, notice(), True),
        ({"events": ("pair.*",)}, notice(), False),
        ({"peers": False}, notice(site="par"), False),
        ({}, notice(site="par"), True),
        ({}, notice("notify.failing", object="me"), False),
        ({}, notice("notify.failing", object="other"), True),
        ({}, notice("notify.failing", object="me", site="par"), True),
    ],
)
def test_who_is_told_what(target: dict[str, Any], chosen: Notice, wanted: bool) -> None:
    assert wants("me", NotifyConfig(exec=("true",), **target), chosen) is wanted


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"exec": ("true",), "webhook": "http://h"},
        {"webhook": "ftp://h"},
        {"webhook": "http://"},
        {"webhook": "http://h:99999"},
        {"ping": "https://[::1"},
        {"exec": ("a\0b",)},
        {"smtp": "smtp://h"},
        {"smtp": "smtp://h", "sender": "a@b", "to": ("c d@e",)},
        {"smtp": "smtp://h", "sender": "a@b", "to": ("a@b\n",)},
        {"smtp": "smtps://h", **MAIL, "user": "u"},
        {"smtp": "smtp://h", **MAIL, "user": "u", "secret": "s"},
        {"smtp": "smtps://u:p@h", **MAIL},
        {"smtp": "smtps://h/x", **MAIL},
        {"smtp": "smtp://h", **MAIL, "ca": "/ca.pem"},
        {"smtp": "smtps://h", **MAIL, "ca": "ca.pem"},
        {"webhook": "http://h", "ca": "/ca.pem"},
        {"exec": ("true",), "ca": "/ca.pem"},
        {"exec": ("true",), "timeout_s": 0.0},
        {"ping": "http://h", "every_s": float("nan")},
        {"webhook": "http://h", "secret_file": "relative"},
        {"webhook": "http://h", "secret": "a", "secret_file": "/b"},
    ],
)
def test_what_cannot_work_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"notify\.n"):
        check_notify({"n": NotifyConfig(**keys)})
