"""Real servers that take notifications, HTTP and SMTP by aiosmtpd; and what a scraper reads."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from tests.support.sites import Site, free_port


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
def http_server() -> Iterator[HttpServer]:
    """A server on the loopback."""

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
    got = HttpServer(f"http://127.0.0.1:{server.server_port}")
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


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """A server on the loopback."""
    port = free_port()
    got = MailServer(f"smtp://127.0.0.1:{port}")
    controller = Controller(got, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield got
    finally:
        controller.stop()


def until(look: Callable[[], Any], limit_s: float = 10.0) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + limit_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.05)
    return found


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
