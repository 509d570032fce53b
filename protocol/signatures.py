"""Signatures by which somebody without a site can tell that a site said something: Ed25519 (RFC 8032).

The secret is a seed of 32 bytes. A key is written `farshore-ed25519:` and 64 hex digits; its fingerprint is
what people compare: the first 128 bits of the SHA-256 of that text. A signature is 128 hex digits, over

    "farshore signed 1" 0x00 purpose 0x00 key 0x00 content

so that what was signed for one purpose is nothing for another, and no other key made it.

The library is loaded when it is first needed: a daemon that signs nothing does without it. Pure.
"""

from __future__ import annotations

import hashlib
import re

from protocol.errors import UsageError

SEED_BYTES = 32
KEY = re.compile(r"farshore-ed25519:[0-9a-f]{64}", re.ASCII)
FINGERPRINT = re.compile(r"[0-9a-f]{4}(?::[0-9a-f]{4}){7}", re.ASCII)
SIGNATURE = re.compile(r"[0-9a-f]{128}", re.ASCII)
_PREFIX = "farshore-ed25519:"


def key_of(seed: bytes) -> str:
    """The key that belongs to a secret. ValueError unless it has 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _PREFIX + Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()


def fingerprint_of(key: str) -> str:
    """32 hex digits in groups of four."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return ":".join(digest[at : at + 4] for at in range(0, 32, 4))


def sign(seed: bytes, purpose: str, content: bytes) -> str:
    """A signature of that content."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).sign(_signed(purpose, key_of(seed), content)).hex()


def is_signed(key: str, purpose: str, content: bytes, signature: str) -> bool:
    """Whether the key's owner signed exactly that."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not KEY.fullmatch(key) or not SIGNATURE.fullmatch(signature):
        return False
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.removeprefix(_PREFIX)))
        public.verify(bytes.fromhex(signature), _signed(purpose, key, content))
    except (InvalidSignature, ValueError):
        return False
    return True


def check_trusted(text: str, subject: str) -> str:
    """A key or a fingerprint as somebody wrote it down, without what stands around it. UsageError unless
    there is exactly one."""
    found: set[str] = set(KEY.findall(text)) or set(FINGERPRINT.findall(text.lower()))
    if len(found) != 1:
        what = "no key and no fingerprint" if not found else "more than one key"
        raise UsageError(
            f"{what} in {subject}",
            subject=subject,
            next_step="`farshore drill key` at the site prints both: bring one here by a way you trust",
        )
    return found.pop()


def is_trusted(key: str, trusted: str) -> bool:
    """Whether it is the key that is trusted, or has that fingerprint."""
    return trusted in (key, fingerprint_of(key))


def _signed(purpose: str, key: str, content: bytes) -> bytes:
    return b"\0".join((b"farshore signed 1", purpose.encode(), key.encode(), content))
