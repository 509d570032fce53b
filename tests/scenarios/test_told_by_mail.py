"""A mail server that wants TLS and a password: what is wrong with either is named, what was to be told waits,
and no password is anywhere but in its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.news import Event, events
from tests.support.receivers import Login, certificate, mail_server, until
from tests.support.sites import Site, running_sites

PASSWORD, WRONG = "c0rrect-h0rse", "wr0ng-h0rse"


@pytest.mark.slow
def test_a_wrong_password_is_named_and_what_waits_is_sent_once_it_is_right(
    scratch: Path, tool: Callable[[str], str]
) -> None:
    own, file = certificate(tool("openssl"), scratch), scratch / "password"
    file.write_text(WRONG)
    file.chmod(0o600)
    with mail_server("smtp+starttls", own, Login("farshore", PASSWORD)) as server:
        target = f"""
smtp = "{server.url}"
user = "farshore"
secret_file = "{file}"
sender = "farshore@a.example"
to = ["ops@a.example"]
events = ["group.created"]
min_level = "info"
"""
        settings = f"""[notify.mail]{target}ca = "{own.cert}"\n[notify.trustless]{target}"""
        with running_sites("a", settings=settings) as (a,):
            said = a.farshore("notify", "test", "trustless", exit_code=1)
            assert "the certificate of 127.0.0.1 is not trusted: self-signed certificate" in said
            said = a.farshore("notify", "test", "mail", exit_code=1)
            assert "127.0.0.1 refuses the user or the password (535)" in said
            a.farshore("volume", "create", "g/v", "--size", "1M")
            until(lambda: [each for each in failing(a) if "refuses the user" in str(each)])
            assert not server.messages
            file.write_text(PASSWORD)
            until(lambda: server.messages, 60.0)
            assert server.messages[0]["Subject"] == "[farshore a] INFO group.created g"
            until(lambda: [each for each in failing(a) if each["resolved"] is True])
            a.farshore("notify", "test", "mail")
            asked = (("status",), ("events",), ("notify", "list"), ("site", "check", str(a.directory)))
            outputs = [a.farshore(*words) for words in asked]
            assert a.stop() == 0
            a.check_log()
            outputs += [a.log_path.read_text(), a.stderr_path.read_text()]
            outputs += [path.read_text() for path in (a.directory / "events").iterdir()]
    assert any("refuses the user" in text for text in outputs)
    assert not any(secret in text for text in outputs for secret in (PASSWORD, WRONG))


def failing(site: Site) -> list[Event]:
    """What was said of the one whose certificate is trusted."""
    return [each for each in events(site, "notify.failing", None) if each["object"] == "mail"]
