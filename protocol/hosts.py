"""Who a host is to the site: a user of this machine on a unix socket, the name in a certificate over TLS.

Text, the same in commands, in the site's state and in the log: `uid:1000`, `cert:vmhost1`. A host on TCP
without TLS is nobody (`NOBODY`), and is on no list.
"""

from __future__ import annotations

import re
from enum import StrEnum

from protocol.bounds import NAME
from protocol.commands.base import check_name
from protocol.errors import UsageError

NOBODY = ""
USER, CERTIFICATE = "uid", "cert"
UID_MAX = (1 << 32) - 2  # the one above means none (setreuid(2))
# In full, for a field of a command; the number's bound is checked by `parse_host`.
HOST_TEXT = rf"^(?:{USER}:[0-9]{{1,10}}|{CERTIFICATE}:{NAME.pattern})\Z"
_UID = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


class Right(StrEnum):
    """What a host may do with a volume. NONE is nobody's choice: it stands where a row cannot be read."""

    READ = "ro"
    WRITE = "rw"
    NONE = ""


def user_host(uid: int) -> str:
    """A user of this machine."""
    return f"{USER}:{uid}"


def certificate_host(name: str) -> str:
    """Who has a certificate of that name."""
    return f"{CERTIFICATE}:{name}"


def parse_host(text: str) -> str:
    """`uid:N` or `N`, `cert:NAME` or `NAME`, in full. UsageError."""
    kind, colon, rest = text.partition(":")
    if not colon:
        kind, rest = (USER, text) if text[:1].isdigit() else (CERTIFICATE, text)
    if kind == USER and _UID.fullmatch(rest) and int(rest) <= UID_MAX:
        return user_host(int(rest))
    if kind == CERTIFICATE and NAME.fullmatch(rest):
        return certificate_host(check_name(rest, "certificate"))
    raise UsageError(
        f"{text!r} is neither a certificate's name nor a user's number",
        subject=text,
        next_step="write NAME as `farshore site cert list` has it, or uid:N as `id -u USER` prints it",
    )
