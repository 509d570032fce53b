"""The tokens by which operators introduce sites to each other.

A token is `farshore1.` and base64url of a JSON object {name, site_id, endpoint, public_key}. It holds nothing
secret, but whoever swaps one swaps the peer: compare fingerprints.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict

import msgspec

from daemon.peers import Peer, PeerFields
from protocol.commands.peer import TOKEN_PREFIX
from protocol.endpoints import check_dialled_endpoint
from protocol.errors import FarshoreError, UsageError


def fingerprint(public_key: str) -> str:
    """What operators compare: 32 hex digits in groups of four."""
    digest = hashlib.sha256(public_key.encode()).hexdigest()[:32]
    return ":".join(digest[at : at + 4] for at in range(0, 32, 4))


def make_token(peer: Peer) -> str:
    """A site's token."""
    text = json.dumps(asdict(peer), separators=(",", ":"))
    return TOKEN_PREFIX + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(token: str) -> Peer:
    """The site that a token describes. UsageError if it is none."""
    body = token.strip().removeprefix(TOKEN_PREFIX)
    try:
        if not token.strip().startswith(TOKEN_PREFIX):
            raise ValueError("it does not begin as one")
        text = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        fields = msgspec.json.decode(text, type=PeerFields)
        if fields.endpoint:
            check_dialled_endpoint(fields.endpoint)
        return fields.peer()
    except (ValueError, FarshoreError) as error:
        known = error.next_step if isinstance(error, FarshoreError) else ""
        raise UsageError(
            f"that is not a site's token: {error}",
            next_step=known or "`farshore site token` at the peer prints it",
        ) from error
