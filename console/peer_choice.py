"""Which peer `--with` means: one that is known by its name, or the one whose token is given."""

from __future__ import annotations

from console.session import Session
from protocol.commands.base import check_name
from protocol.limits import NAME_CHARS_MAX


def peer_or_token(session: Session, word: str) -> str:
    """The peer's name. One that is named by its token is made known at the site first, and said."""
    if len(word) <= NAME_CHARS_MAX:
        return check_name(word, "peer")
    # Most name a peer, and do not wait for what introduces one.
    from protocol.commands.peer import TOKEN_PREFIX, PeerAdd

    if not word.startswith(TOKEN_PREFIX):
        return check_name(word, "peer")
    data = session.call(PeerAdd(token=word.strip()))

    def show() -> None:
        session.output.line(f"peer {data.peer}, key {data.fingerprint}: compare it there")

    session.output.result("peer.add", data, show)
    return data.peer
