"""Mail and webhooks over TLS, to real servers with certificates made here: one that is not trusted is sent
nothing; that, and a wrong password, is named and tried again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.notify.config import NotifyConfig, redacted, secret_of
from daemon.notify.worker import attempt_send
from tests.support.receivers import Certificate, Login, certificate, http_server, mail_server
from tests.unit.daemon.notify.test_senders import EVENT, MAIL

SCHEMES = ["smtps", "smtp+starttls"]
USER, PASSWORD = "farshore", "c0rrect h0rse"


@pytest.fixture
def own(tool: Callable[[str], str], tmp_path: Path) -> Certificate:
    """Of the server at 127.0.0.1."""
    return certificate(tool("openssl"), tmp_path)


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o640)
    return path


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_mail_goes_over_tls_by_who_logs_in(scheme: str, own: Certificate, password: Path) -> None:
    login = Login(USER, PASSWORD)
    with mail_server(scheme, own, login) as server:
        target = NotifyConfig(smtp=server.url, ca=str(own.cert), user=USER, secret_file=str(password), **MAIL)
        assert attempt_send(target, "lon", EVENT) == ("", False)
        (message,) = server.messages
        assert (message["To"], login.tries) == ("ops@lon.example", 1)
        password.write_text("wr0ng")
        error, final = attempt_send(target, "lon", EVENT)
        assert (error, final) == ("127.0.0.1 refuses the user or the password (535)", False)
        assert len(server.messages) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_is_not_trusted_gets_neither_mail_nor_password(
    scheme: str, own: Certificate, password: Path, tool: Callable[[str], str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    login = Login(USER, PASSWORD)
    other = certificate(tool("openssl"), tmp_path, "DNS:other.example")
    with mail_server(scheme, own, login) as server, mail_server(scheme, other, login) as elsewhere:

        def attempt(url: str, ca: Path | None) -> tuple[str, bool]:
            target = NotifyConfig(smtp=url, ca=str(ca or ""), user=USER, secret_file=str(password), **MAIL)
            return attempt_send(target, "lon", EVENT)

        for url, ca, why in (
            (server.url, None, "self-signed certificate"),
            (server.url, other.cert, "self-signed certificate"),
            (elsewhere.url, other.cert, "IP address mismatch"),
        ):
            error, final = attempt(url, ca)
            assert error.startswith("the certificate of 127.0.0.1 is not trusted: "), error
            assert (why in error, final) == (True, False), error
        for ca in (password, tmp_path / "none"):
            assert attempt(server.url, ca)[0].startswith("ca: no certificate can be read from")
        assert not [*server.messages, *elsewhere.messages]
        assert login.tries == 0
        # What the system trusts, where no file is named.
        monkeypatch.setenv("SSL_CERT_FILE", str(own.cert))
        assert attempt(server.url, None) == ("", False)


def test_a_server_without_tls_is_sent_nothing_in_clear(password: Path) -> None:
    with mail_server() as server:
        url = server.url.replace("smtp://", "smtp+starttls://")
        target = NotifyConfig(smtp=url, user=USER, secret_file=str(password), **MAIL)
        assert "STARTTLS" in attempt_send(target, "lon", EVENT)[0]
        url = server.url.replace("smtp://", "smtps://")
        target = NotifyConfig(smtp=url, user=USER, secret_file=str(password), timeout_s=5.0, **MAIL)
        assert attempt_send(target, "lon", EVENT)[0].startswith("no TLS with 127.0.0.1")
        assert not server.messages


def test_a_webhook_and_a_ping_go_to_a_server_that_is_trusted(own: Certificate) -> None:
    with http_server(own) as server:
        hook, ping = f"{server.url}/h", f"{server.url}/p"
        for wary, trusting, event in (
            (NotifyConfig(webhook=hook), NotifyConfig(webhook=hook, ca=str(own.cert)), EVENT),
            (NotifyConfig(ping=ping), NotifyConfig(ping=ping, ca=str(own.cert)), None),
        ):
            before = len(server.requests)
            assert "is not trusted: self-signed" in attempt_send(wary, "lon", event)[0]
            assert len(server.requests) == before
            assert attempt_send(trusting, "lon", event) == ("", False)
        assert [each.path for each in server.requests] == ["/h", "/p"]


def test_a_secret_that_everybody_can_read_is_not_used(password: Path) -> None:
    target = NotifyConfig(smtp="smtps://127.0.0.1:1", user=USER, secret_file=str(password), **MAIL)
    assert secret_of(target) == PASSWORD
    password.chmod(0o644)
    with pytest.raises(ValueError, match="is open to every user: chmod o="):
        secret_of(target)
    assert "is open to every user" in attempt_send(target, "lon", EVENT)[0]
    password.unlink()
    os.mkfifo(password, 0o600)
    with pytest.raises(ValueError, match="is no file"):
        secret_of(target)


def test_what_a_server_repeats_of_a_login_is_left_out() -> None:
    target = NotifyConfig(smtp="smtps://h", user="ann", secret="pw", **MAIL)
    assert redacted("535 AGFubgBwdw== cHc= pw", target, "pw") == "535 … … …"
