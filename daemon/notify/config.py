"""[notify.NAME] in site.toml: who is told of events, and how. Read once at start."""

from __future__ import annotations

import pathlib
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
    """A file that holds it; its last line's end does not count."""

    user: str = ""
    """Of smtp, who logs in; empty: nobody does."""

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


def check_notify(targets: dict[str, NotifyConfig]) -> None:
    """UsageError."""
    if len(targets) > NOTIFY_TARGETS_MAX:
        raise UsageError(f"at most {NOTIFY_TARGETS_MAX} sections [notify.NAME]")
    for name, target in targets.items():
        check_name(name, "notify")
        for error in (_way_error(target), _smtp_error(target), _figures_error(target)):
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
    return "" if not target.user or target.secret or target.secret_file else "`user` without a secret"


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
    """Its secret. OSError or ValueError if it cannot be read."""
    if not target.secret_file:
        return target.secret
    with pathlib.Path(target.secret_file).open("rb") as file:
        data = file.read(SECRET_BYTES_MAX + 1)
    if len(data) > SECRET_BYTES_MAX:
        raise ValueError(f"{target.secret_file} is longer than {SECRET_BYTES_MAX} bytes")
    return data.decode().rstrip("\r\n")


def redacted(text: str, target: NotifyConfig, secret: str) -> str:
    """An error without what nobody may read in a log: secrets, and what an URL has behind its host."""
    url = _split(target.webhook or target.ping)
    private = [secret, target.secret, url.query, url.path.strip("/"), url.netloc.rpartition("@")[0]]
    for each in sorted(filter(None, private), key=len, reverse=True):
        text = text.replace(each, "…")
    return text


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
