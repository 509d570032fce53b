"""[notify.NAME] in site.toml: who is told of events, and how."""

from __future__ import annotations

import base64
import os
import stat
from typing import get_args
from urllib.parse import SplitResult, urlsplit

import msgspec

from protocol.commands.base import check_name
from protocol.commands.event import Level
from protocol.commands.notify import Way
from protocol.errors import UsageError
from protocol.limits import HOOK_CHARS_MAX, HOOK_WORDS_MAX, NOTIFY_TARGETS_MAX

WAYS: tuple[Way, ...] = get_args(Way)
_SCHEMES: dict[Way, tuple[str, ...]] = {
    "webhook": ("http", "https"),
    "ping": ("http", "https"),
    "smtp": ("smtp", "smtps", "smtp+starttls"),
}
_WITH_TLS = ("https", "smtps", "smtp+starttls")
TIMEOUT_MAX_S = 300.0
EVERY_MIN_S, EVERY_MAX_S = 1.0, 86_400.0
PATTERNS_MAX = 64
RECIPIENTS_MAX = 64
SECRET_BYTES_MAX = 4096


class NotifyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of [notify.NAME]: one of `exec`, `webhook`, `smtp` and `ping`, and how."""

    exec: tuple[str, ...] = ()
    """A command, run as the daemon's user without a shell: the event as JSON on its standard input, and
    FARSHORE_* in its environment. Ends with 0 once it has told."""

    webhook: str = ""
    """http:// or https:// URL to which the event is posted as JSON."""

    smtp: str = ""
    """smtp://, smtps:// or smtp+starttls://HOST[:PORT]: a message to each of `to`."""

    ping: str = ""
    """URL that is fetched every `every_s` while all is well, so that its silence tells."""

    secret: str = ""
    """Of a webhook, the key of its HMAC-SHA256; of smtp, the password. Better in a file."""

    secret_file: str = ""
    """A file that holds it, which not everybody may read; its last line's end does not count."""

    ca: str = ""
    """Of https, smtps and smtp+starttls: a file of certificates (PEM), by one of which the server's must be
    signed; empty: those that the system trusts."""

    user: str = ""
    """Of smtp, who logs in; empty: nobody does. Not without TLS."""

    sender: str = ""
    """Of smtp, whom a message is from."""

    to: tuple[str, ...] = ()
    """Of smtp, whom it goes to."""

    min_level: Level = "warning"
    """Told are events from this level on, and that they are over."""

    events: tuple[str, ...] = ()
    """Only kinds like these, such as `peer.*`; empty: all."""

    peers: bool = True
    """Events that happened at a peer, too. If both sites tell the same people, each event is told twice."""

    every_s: float = 60.0
    """Of a ping."""

    timeout_s: float = 10.0
    """How long one try may take."""

    @property
    def ways(self) -> list[Way]:
        """Which of `WAYS` are given."""
        return [way for way in WAYS if getattr(self, way)]

    @property
    def way(self) -> Way:
        """Which one it is; `check_notify` has seen that there is one."""
        (way,) = self.ways
        return way

    @property
    def url(self) -> str:
        """Where it goes; empty for a command."""
        return self.webhook or self.smtp or self.ping


def check_notify(targets: dict[str, NotifyConfig]) -> None:
    """UsageError."""
    if len(targets) > NOTIFY_TARGETS_MAX:
        raise UsageError(f"at most {NOTIFY_TARGETS_MAX} sections [notify.NAME]")
    for name, target in targets.items():
        check_name(name, "notify")
        for error in (_way_error(target), _smtp_error(target), _ca_error(target), _figures_error(target)):
            if error:
                raise UsageError(f"notify.{name}: {error}", subject=name)


def _way_error(target: NotifyConfig) -> str:
    ways = target.ways
    if len(ways) != 1:
        return f"one of {', '.join(WAYS)} says how; here are {' and '.join(ways) or 'none'}"
    if target.exec:
        words = target.exec
        if len(words) > HOOK_WORDS_MAX or sum(map(len, words)) > HOOK_CHARS_MAX or "\0" in "".join(words):
            return f"exec is at most {HOOK_WORDS_MAX} words and {HOOK_CHARS_MAX} characters without a NUL"
        return ""
    schemes = _SCHEMES[ways[0]]
    try:
        url = urlsplit(getattr(target, ways[0]))
        valid = url.scheme in schemes and bool(url.hostname) and (url.port is None or 0 < url.port < 65536)
    except ValueError:
        valid = False
    return "" if valid else f"{ways[0]} must be {' or '.join(f'{scheme}://HOST' for scheme in schemes)}"


def _smtp_error(target: NotifyConfig) -> str:
    if not target.smtp:
        return ""
    people = (target.sender, *target.to)
    if not target.sender or not 1 <= len(target.to) <= RECIPIENTS_MAX:
        return f"smtp needs `sender`, and 1 to {RECIPIENTS_MAX} of `to`"
    if any(not each.isprintable() or "@" not in each or " " in each for each in people):
        return "`sender` and `to` are addresses, NAME@HOST"
    url = _split(target.smtp)
    if "@" in url.netloc or url.path.strip("/") or url.query:
        return "smtp is smtp://HOST[:PORT] and no more: who logs in is `user`"
    if target.user and url.scheme == "smtp":
        return "`user` needs smtps:// or smtp+starttls://: else the password can be read on its way"
    return "" if not target.user or target.secret or target.secret_file else "`user` without a secret"


def _ca_error(target: NotifyConfig) -> str:
    if not target.ca:
        return ""
    if _split(target.url).scheme not in _WITH_TLS:
        return f"`ca` is for {', '.join(f'{scheme}://' for scheme in _WITH_TLS)}"
    return "" if target.ca.startswith("/") else "ca must be an absolute path"


def _figures_error(target: NotifyConfig) -> str:
    if not 0 < target.timeout_s <= TIMEOUT_MAX_S:
        return f"timeout_s must be above 0 and at most {TIMEOUT_MAX_S:g}"
    if not EVERY_MIN_S <= target.every_s <= EVERY_MAX_S:
        return f"every_s must be from {EVERY_MIN_S:g} to {EVERY_MAX_S:g}"
    if len(target.events) > PATTERNS_MAX:
        return f"at most {PATTERNS_MAX} of `events`"
    if target.secret_file and not target.secret_file.startswith("/"):
        return "secret_file must be an absolute path"
    return "`secret` and `secret_file`: give one" if target.secret and target.secret_file else ""


def secret_of(target: NotifyConfig) -> str:
    """Its secret. OSError or ValueError if it cannot be read, or everybody can read it."""
    if not target.secret_file:
        return target.secret
    # Not to wait for a FIFO's writer.
    with open(os.open(target.secret_file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if error := secret_file_error(target.secret_file, os.fstat(file.fileno())):
            raise ValueError(error)
        data = file.read(SECRET_BYTES_MAX + 1)
    if len(data) > SECRET_BYTES_MAX:
        raise ValueError(f"{target.secret_file} is longer than {SECRET_BYTES_MAX} bytes")
    return data.decode().rstrip("\r\n")


def secret_file_error(path: str, found: os.stat_result) -> str:
    """What keeps a file from holding a secret, or nothing."""
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is no file"
    return f"{path} is open to every user: chmod o= {path}" if found.st_mode & 0o007 else ""


def redacted(text: str, target: NotifyConfig, secret: str) -> str:
    """An error without what nobody may read in a log: secrets, and what an URL has behind its host."""
    url = _split(target.webhook or target.ping)
    # As AUTH sends it, and a server may repeat it.
    sent = (secret, f"\0{target.user}\0{secret}") if secret else ()
    encoded = [base64.b64encode(each.encode()).decode() for each in sent]
    private = [secret, target.secret, *encoded, url.query, url.path.strip("/"), url.netloc.rpartition("@")[0]]
    for each in sorted(filter(None, private), key=len, reverse=True):
        text = text.replace(each, "…")
    return text


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
