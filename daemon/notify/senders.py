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
from collections.abc import Iterator
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
    _request("GET", target, b"", {})


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
    _request("POST", target, body, headers)


def _request(method: str, target: NotifyConfig, body: bytes, headers: dict[str, str]) -> None:
    parts, timeout_s = urlsplit(target.url), target.timeout_s
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = _context(target)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with contextlib.closing(connection), _named_errors(host):
        connection.request(method, path, body or None, {"User-Agent": "farshore", **headers})
        response = connection.getresponse()
        response.read(REPLY_BYTES)
    if not 200 <= response.status < 300:
        final = 400 <= response.status < 500 and response.status not in _TRY_AGAIN
        raise Undelivered(f"{host} answered {response.status}", final=final)


def _mail(target: NotifyConfig, secret: str, site: str, event: EventInfo) -> None:
    message = mail_of(target, site, event)
    parts = urlsplit(target.smtp)
    host, timeout_s = parts.hostname or "", target.timeout_s
    port = parts.port or _SMTP_PORTS[parts.scheme]
    with _named_errors(host):
        if parts.scheme == "smtps":
            context = _context(target)
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=timeout_s, context=context)
        else:
            server = smtplib.SMTP(host, port, timeout=timeout_s)
        with server:
            if parts.scheme == "smtp+starttls":
                server.starttls(context=_context(target))
            if target.user:
                server.login(target.user, secret)
            server.send_message(message)


def _context(target: NotifyConfig) -> ssl.SSLContext:
    """The server's certificate must be signed by one that is trusted, and be of its name."""
    try:
        return ssl.create_default_context(cafile=target.ca or None)
    except OSError as error:  # TLS's own errors, too
        raise Undelivered(f"ca: no certificate can be read from {target.ca}: {error}") from None


@contextlib.contextmanager
def _named_errors(host: str) -> Iterator[None]:
    """What an operator has to mend, in words. A server's own are left out where they could repeat a
    password."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Undelivered(f"the certificate of {host} is not trusted: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise Undelivered(f"no TLS with {host}: {error.reason or error}") from None
    except smtplib.SMTPAuthenticationError as error:
        raise Undelivered(f"{host} refuses the user or the password ({error.smtp_code})") from None
    except smtplib.SMTPNotSupportedError as error:
        raise Undelivered(f"{host} cannot do what is asked: {error}") from None


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
