"""One notification: by a command, by HTTP, by mail; and one ping. Each step waits for at most the time-out.

The body is the line that `farshore events --follow --json` prints. A webhook's is signed:
`X-Farshore-Signature: sha256=HEX`, HMAC-SHA256 of the body by the secret; `X-Farshore-Delivery` is the same
for each try.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import os
import signal
import smtplib
import ssl
import subprocess
from email.message import EmailMessage
from urllib.parse import urlsplit

import msgspec

from daemon.notify.config import NotifyConfig
from protocol.commands.event import EventInfo
from protocol.printable import printable

API_VERSION = 1
REPLY_BYTES = 4096
SUBJECT_CHARS_MAX = 200
# Not for having asked too early or too often, nor for what an operator mends at the other end.
_TRY_AGAIN = frozenset({401, 403, 404, 408, 425, 429})

_SMTP_PORTS = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}


class Undelivered(Exception):
    """`final`: no further try will do."""

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


# What a try may raise beside `Undelivered`: the network's, TLS's, the parsers' and the system's errors.
ERRORS = (OSError, http.client.HTTPException, ValueError, subprocess.SubprocessError)


def body_of(site: str, event: EventInfo) -> bytes:
    """As JSON."""
    return msgspec.json.encode({"api": API_VERSION, "kind": "event", "site": site, "data": event})


def send(target: NotifyConfig, secret: str, site: str, event: EventInfo) -> None:
    """Undelivered, or one of `ERRORS`."""
    if target.exec:
        _run(target, site, event)
    elif target.webhook:
        _post(target, secret, site, event)
    elif target.smtp:
        _mail(target, secret, site, event)


def ping(target: NotifyConfig) -> None:
    """Fetch the URL. Undelivered, or one of `ERRORS`."""
    _request("GET", target.ping, target.timeout_s, b"", {})


def _run(target: NotifyConfig, site: str, event: EventInfo) -> None:
    variables = {
        "EVENT": event.kind,
        "LEVEL": event.level,
        "SITE": site,
        "AT_SITE": event.site or site,
        "GROUP": event.group or "",
        "OBJECT": event.object,
        "POSITION": event.position,
        "TIME": event.time,
        "RESOLVED": "1" if event.resolved else "0",
        "MESSAGE": event.message,
    }
    environment = dict(os.environ) | {
        f"FARSHORE_{name}": value.replace("\0", "") for name, value in variables.items()
    }
    process = subprocess.Popen(
        target.exec,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        process.communicate(body_of(site, event) + b"\n", target.timeout_s)
    except subprocess.TimeoutExpired:
        raise Undelivered(f"{target.exec[0]} did not end within {target.timeout_s:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise Undelivered(f"{target.exec[0]} ended with {process.returncode}")


def _post(target: NotifyConfig, secret: str, site: str, event: EventInfo) -> None:
    body = body_of(site, event)
    headers = {
        "Content-Type": "application/json",
        "X-Farshore-Event": event.kind,
        "X-Farshore-Delivery": hashlib.sha256(body).hexdigest()[:32],
    }
    if secret:
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers["X-Farshore-Signature"] = f"sha256={digest}"
    _request("POST", target.webhook, target.timeout_s, body, headers)


def _request(method: str, url: str, timeout_s: float, body: bytes, headers: dict[str, str]) -> None:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, path, body or None, {"User-Agent": "farshore", **headers})
        response = connection.getresponse()
        response.read(REPLY_BYTES)
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        final = 400 <= response.status < 500 and response.status not in _TRY_AGAIN
        raise Undelivered(f"{host} answered {response.status}", final=final)


def _mail(target: NotifyConfig, secret: str, site: str, event: EventInfo) -> None:
    message = mail_of(target, site, event)
    parts = urlsplit(target.smtp)
    host, timeout_s = parts.hostname or "", target.timeout_s
    context = ssl.create_default_context()
    port = parts.port or _SMTP_PORTS[parts.scheme]
    if parts.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=timeout_s, context=context)
    else:
        server = smtplib.SMTP(host, port, timeout=timeout_s)
    with server:
        if parts.scheme == "smtp+starttls":
            server.starttls(context=context)
        if target.user:
            server.login(target.user, secret)
        server.send_message(message)


def mail_of(target: NotifyConfig, site: str, event: EventInfo) -> EmailMessage:
    """What a person reads."""
    state = "RESOLVED" if event.resolved else event.level.upper()
    what = event.object or event.group or ""
    message = EmailMessage()
    message["Subject"] = printable(f"[farshore {site}] {state} {event.kind} {what}")[:SUBJECT_CHARS_MAX]
    message["From"] = target.sender
    message["To"] = ", ".join(target.to)
    message["Auto-Submitted"] = "auto-generated"
    lines = {
        "site": event.site or site,
        "told by": site,
        "time": event.time,
        "group": event.group or "",
        "object": event.object,
        "position": event.position,
        "message": event.message,
    }
    message.set_content("".join(f"{key}: {printable(value)}\n" for key, value in lines.items() if value))
    return message
