"""From a passphrase to the volume key: each key slot is tried, and a key is believed by its digest only.

What a slot asks for in memory and time is its header's choice, which may be a stranger's: memory is bounded
here, time by the limits of the process.

Source: LUKS1 On-Disk Format Specification 1.2.3, figures 2 to 5; RFC 9106.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator

from cryptography.exceptions import UnsupportedAlgorithm

from console.luks.ciphers import SectorCipher
from console.luks.header import SECTOR_BYTES, Kdf, KeySlot, Luks, Read
from console.luks.unreadable import Unreadable, WrongKey

# Imported while files can still be opened; older versions of it have no Argon2, or only one of them.
try:
    from cryptography.hazmat.primitives.kdf import argon2
except ImportError:
    argon2 = None  # type: ignore[assignment]

# What cryptsetup takes at most unless it is told otherwise is 1 GiB; the process may have 2.
ARGON_KIB_MAX = 1 << 20
# An Argon2 pass over 1 GiB takes a second or two.
ARGON_WORK_KIB_MAX = 64 << 20
ARGON_KINDS = {"argon2i": "Argon2i", "argon2id": "Argon2id"}


def volume_key(luks: Luks, read: Read, secret: bytes | bytearray, *, renew: Callable[[], None]) -> bytes:
    """The key that one of the slots gives. `renew` is called before each, for the time that it takes. Raises
    WrongKey; Unreadable if no slot could be tried, or what is wrong with those that could not."""
    troubles: list[Unreadable] = []
    tried = False
    for slot in luks.slots:
        if not any(slot.number in digest.slots for digest in luks.digests):
            continue
        for candidate in _candidates(secret):
            renew()
            try:
                key = _key_of(slot, read, candidate)
            except Unreadable as error:
                troubles.append(error)
                break
            tried = True
            if _is_key(luks, slot, key):
                return key
    if troubles:
        raise troubles[0]
    if not tried:
        raise Unreadable("it has no key slot that is in use")
    raise WrongKey


def _candidates(secret: bytes | bytearray) -> Iterator[bytes | bytearray]:
    """All of it, as cryptsetup takes a key file; then without the newline with which editors end a file."""
    yield secret
    if secret.endswith(b"\n"):
        yield secret[:-1]


def _key_of(slot: KeySlot, read: Read, secret: bytes | bytearray) -> bytes:
    """What a slot holds for this secret, right or wrong."""
    slot_key = derive(slot.kdf, secret, slot.cipher_key_bytes)
    cipher = SectorCipher(slot.cipher, slot_key)
    size = slot.key_bytes * slot.stripes
    sectors = -(-size // SECTOR_BYTES)
    material = cipher.decrypt(0, read(slot.first_byte, sectors * SECTOR_BYTES))
    return merged(material[:size], slot.key_bytes, slot.stripes, slot.hash)


def _is_key(luks: Luks, slot: KeySlot, key: bytes) -> bool:
    for digest in luks.digests:
        if slot.number in digest.slots:
            found = derive(digest.kdf, key, len(digest.digest))
            if hmac.compare_digest(found, digest.digest):
                return True
    return False


def derive(kdf: Kdf, secret: bytes | bytearray, size: int) -> bytes:
    """A key of `size` bytes. Raises Unreadable."""
    if kdf.kind == "pbkdf2":
        return hashlib.pbkdf2_hmac(kdf.hash, secret, kdf.salt, kdf.iterations, size)
    if kdf.kind not in ARGON_KINDS:
        raise Unreadable(f"its way from passphrase to key, {kdf.kind[:32]}, is not known here")
    if kdf.memory_kib > ARGON_KIB_MAX or kdf.memory_kib * kdf.iterations > ARGON_WORK_KIB_MAX:
        raise Unreadable(f"its {kdf.kind} takes {kdf.memory_kib >> 10} MiB {kdf.iterations} times")
    try:
        made = getattr(argon2, ARGON_KINDS[kdf.kind])(
            salt=kdf.salt,
            length=size,
            iterations=kdf.iterations,
            lanes=kdf.lanes,
            memory_cost=kdf.memory_kib,
        )
        return bytes(made.derive(secret))
    except (AttributeError, UnsupportedAlgorithm) as error:
        raise Unreadable(f"its {kdf.kind} takes a newer version of Python's cryptography") from error
    except ValueError as error:
        raise Unreadable(f"its {kdf.kind} makes no sense") from error


def merged(material: bytes, key_bytes: int, stripes: int, hash_name: str) -> bytes:
    """The key out of its stripes, of which each bit of each counts."""
    mixed = bytes(key_bytes)
    for at in range(0, key_bytes * (stripes - 1), key_bytes):
        mixed = _diffused(_xored(mixed, material[at : at + key_bytes]), hash_name)
    return _xored(mixed, material[key_bytes * (stripes - 1) :])


def _xored(left: bytes, right: bytes) -> bytes:
    size = len(left)
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(size, "big")


def _diffused(block: bytes, hash_name: str) -> bytes:
    step = hashlib.new(hash_name).digest_size
    return b"".join(
        hashlib.new(hash_name, number.to_bytes(4, "big") + block[at : at + step]).digest()[: len(block) - at]
        for number, at in enumerate(range(0, len(block), step))
    )
