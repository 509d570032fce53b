"""Real servers that take notifications, HTTP and SMTP by aiosmtpd; and what a scraper reads."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.support.sites import Site, free_port
from tests.support.waiting import pause_s


@dataclass(frozen=True)
class Certificate:
    """Of a server, signed by itself: files of it and of its key."""

    cert: Path
    key: Path

    @property
    def context(self) -> ssl.SSLContext:
        """What a server needs."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.cert, self.key)
        return made


def certificate(openssl: str, directory: Path, name: str = "IP:127.0.0.1") -> Certificate:
    """A new one for a name, as openssl has it."""
    label = name.partition(":")[2]
    made = Certificate(directory / f"{label}.pem", directory / f"{label}.key")
    words = ["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-keyout", str(made.key), "-out", str(made.cert)]
    subject = ["-subj", f"/CN={label}", "-addext", f"subjectAltName={name}"]
    subprocess.run([openssl, *words, *files, *subject], check=True, capture_output=True)
    return made


@dataclass
class Request:
    """One that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpServer:
    """What came to it; `statuses` are answered first, then 200."""

    url: str
    requests: list[Request] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


@contextmanager
def http_server(tls: Certificate | None = None) -> Iterator[HttpServer]:
    """A server on the loopback; of https with `tls`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._take(b"")

        def do_POST(self) -> None:
            self._take(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _take(self, body: bytes) -> None:
            got.requests.append(Request(self.command, self.path, dict(self.headers), body))
            self.send_response(got.statuses.pop(0) if got.statuses else 200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing to say."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    got = HttpServer(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}")
    if tls:
        server.socket = tls.context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class MailServer:
    """What came to it."""

    url: str
    messages: list[Message] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """See aiosmtpd."""
        self.messages.append(message_from_bytes(envelope.content))
        return "250 taken"


class Login:
    """Takes one user with one password, and counts who came."""

    def __init__(self, user: str, password: str) -> None:
        self.expected = LoginPassword(user.encode(), password.encode())
        self.tries = 0

    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        """See aiosmtpd."""
        self.tries += 1
        return AuthResult(success=data == self.expected, handled=False)


@contextmanager
def mail_server(
    scheme: str = "smtp", tls: Certificate | None = None, login: Login | None = None
) -> Iterator[MailServer]:
    """A server on the loopback; with `tls` as the scheme says; with `login` only for who logs in."""
    port = free_port()
    got = MailServer(f"{scheme}://127.0.0.1:{port}")
    keys: dict[str, Any] = {}
    if tls is not None:
        keys = (
            {"ssl_context": tls.context}
            if scheme == "smtps"
            else {"tls_context": tls.context, "require_starttls": True}
        )
    if login is not None:
        keys |= {"authenticator": login, "auth_required": True, "auth_require_tls": scheme != "smtps"}
    controller = Controller(got, hostname="127.0.0.1", port=port, **keys)
    controller.start()
    try:
        yield got
    finally:
        controller.stop()


def until(look: Callable[[], Any], limit_s: float = 10.0) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + limit_s
    while True:
        began = time.monotonic()
        if found := look():
            return found
        now = time.monotonic()
        assert now < deadline, f"not within {limit_s} s"
        time.sleep(pause_s(now - began))


def fetch(url: str) -> str:
    """What an URL gives."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def serve_metrics(site: Site) -> str:
    """Restart it with `metrics`; the address."""
    address = f"127.0.0.1:{free_port()}"
    site.stop()
    config = site.directory / "site.toml"
    config.write_text(f'metrics = "{address}"\n{config.read_text()}')
    site.start()
    return address
