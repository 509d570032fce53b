"""The key by which this site signs what is shown to people outside: made at its first use, kept beside the
other secret, and never changed by itself, so that what was signed can be verified for as long as it is
kept.

    keys/signing     the Ed25519 secret, 64 hex digits (0600)

It is another key than the one of the connections (CURVE is X25519, which cannot sign), and goes on when that
one is rotated.
"""

from __future__ import annotations

import re
import secrets

from engine.ports.disk import Disk
from protocol.errors import Corruption
from protocol.signatures import SEED_BYTES

SIGNING_KEY_FILE = "keys/signing"
_SEED = re.compile(rb"[0-9a-f]{%d}\n?" % (2 * SEED_BYTES))


def signing_seed(disk: Disk) -> bytes:
    """The secret; a new one, durable on return, if there is none. Corruption if what is there is none:
    another one in its place would make every report that was given out look like somebody else's.
    OSError."""
    if not disk.exists(SIGNING_KEY_FILE):
        seed = secrets.token_bytes(SEED_BYTES)
        disk.replace_file(SIGNING_KEY_FILE, seed.hex().encode())
        return seed
    text = disk.read_file(SIGNING_KEY_FILE)
    if not _SEED.fullmatch(text):
        raise Corruption(
            f"{SIGNING_KEY_FILE} is no signing key",
            subject=SIGNING_KEY_FILE,
            next_step="restore it from a copy of the data directory; only if there is none, remove it: "
            "reports are then signed by a new key, and those given out before by one that is lost",
        )
    return bytes.fromhex(text.decode().strip())
