"""LUKS2 headers as bytes, right in everything but what a test changes."""

from __future__ import annotations

import hashlib
import json
import struct
from base64 import b64encode
from typing import Any

HEADER_BYTES = 16384
SALT = b64encode(b"s" * 32).decode()


def text() -> dict[str, Any]:
    """The JSON of a volume with one slot; the digest is of no key."""
    return {
        "keyslots": {
            "0": {
                "type": "luks2",
                "key_size": 64,
                "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
                "area": {
                    "type": "raw",
                    "offset": "32768",
                    "size": "258048",
                    "encryption": "aes-xts-plain64",
                    "key_size": 64,
                },
                "kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": 1000, "salt": SALT},
            }
        },
        "tokens": {},
        "segments": {
            "0": {
                "type": "crypt",
                "offset": "16777216",
                "size": "dynamic",
                "iv_tweak": "0",
                "encryption": "aes-xts-plain64",
                "sector_size": 4096,
            }
        },
        "digests": {
            "0": {
                "type": "pbkdf2",
                "keyslots": ["0"],
                "segments": ["0"],
                "hash": "sha256",
                "iterations": 1000,
                "salt": SALT,
                "digest": b64encode(b"d" * 32).decode(),
            }
        },
        "config": {"json_size": "12288", "keyslots_size": "16744448"},
    }


def header(of: dict[str, Any], *, at: int = 0) -> bytes:
    """The header that lies at `at`, with its sum."""
    body = json.dumps(of).encode().ljust(HEADER_BYTES - 4096, b"\0")
    magic = b"SKUL\xba\xbe" if at else b"LUKS\xba\xbe"
    fields = (magic, 2, HEADER_BYTES, 1, b"", b"sha256", b"salt", b"uuid", b"", at, b"", b"")
    head = bytearray(struct.pack(">6sHQQ48s32s64s40s48sQ184s64s", *fields).ljust(4096, b"\0"))
    head[448:480] = hashlib.sha256(bytes(head) + body).digest()
    return bytes(head) + body
