"""What a LUKS header says: which ciphers, which key slots, where the content lies. Pure.

LUKS1, big-endian:

      0    6  "LUKS" ba be            72   32  hash
      6    2  version 1              104    4  payload, first sector of 512 bytes
      8   32  cipher                 108    4  bytes of the volume key
     40   32  mode and IV            112   20  digest of the volume key, its salt (32) and iterations (4)
    208 48*8  key slots: active ac71f3 or dead, iterations, salt (32), first sector, stripes

LUKS2 has 4 KiB and then JSON, up to `hdr_size`; a second copy of both begins there with "SKUL" ba be:

      0    6  "LUKS" ba be           72   32  hash of the checksum
      6    2  version 2             256    8  offset of this header
      8    8  hdr_size              448   64  checksum of header and JSON, with zeroes here

A header with a sum that is wrong is not used; the copy then is. Everything is a stranger's, and bounded.

Source: LUKS1 On-Disk Format Specification 1.2.3; LUKS2 On-Disk Format Specification 1.1.2.
"""

from __future__ import annotations

import hashlib
import struct
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from console.luks.unreadable import Unreadable

Read = Callable[[int, int], bytes]

SECTOR_BYTES = 512
MAGIC, SECOND_MAGIC = b"LUKS\xba\xbe", b"SKUL\xba\xbe"
LUKS2_BYTES = 4096
LUKS2_SIZES = tuple(size << 10 for size in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096))
STRIPES_MAX = 1 << 16
ITERATIONS_MAX = (1 << 32) - 1
KEY_BYTES_MAX = 64
DIGEST_BYTES_MIN = 20
SLOTS_MAX = 32
_ACTIVE = 0x00AC71F3
_LUKS1 = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT1 = struct.Struct(">II32sII")
_LUKS2 = struct.Struct(">6sHQQ48s32s64s40s48sQ184s64s")
_CHECKSUM_AT = 448
_HASHES = frozenset({"sha1", "sha256", "sha512", "sha224", "sha384", "ripemd160"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kdf:
    """How a passphrase becomes a key: `pbkdf2` with `hash` and `iterations`; `argon2i` or `argon2id` with
    `iterations`, `memory_kib` and `lanes`."""

    kind: str
    salt: bytes
    iterations: int
    hash: str = ""
    memory_kib: int = 0
    lanes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySlot:
    """A place of the volume key, encrypted; `stripes` copies of `key_bytes` that are one by `hash`."""

    number: str
    kdf: Kdf
    cipher: str
    cipher_key_bytes: int
    hash: str
    key_bytes: int
    first_byte: int
    stripes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """By which a volume key is known."""

    kdf: Kdf
    digest: bytes
    slots: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Luks:
    """`sector_bytes` are encrypted at once; IVs count in 512 bytes, from `iv_first`. `size_bytes` 0: up to
    the end."""

    version: int
    cipher: str
    first_byte: int
    size_bytes: int
    sector_bytes: int
    iv_first: int
    slots: tuple[KeySlot, ...]
    digests: tuple[Digest, ...]


def read_header(read: Read) -> Luks:
    """`read` gives bytes by offset and length. Raises Unreadable; OSError where it cannot read."""
    head = read(0, LUKS2_BYTES)
    if head[:6] == MAGIC and head[6:8] == b"\0\1":
        return _luks1(head)
    for at in (0, *LUKS2_SIZES):
        text = _luks2_text(read, at)
        if text is not None:
            return _luks2(text)
    version = int.from_bytes(head[6:8], "big")
    if version == 2:
        raise Unreadable("both of its LUKS2 headers are damaged")
    raise Unreadable(f"it has LUKS of version {version}, which is not known here")


def _luks1(head: bytes) -> Luks:
    (_, _, name, mode, hash_name, payload, key_bytes, digest, salt, rounds, _) = _LUKS1.unpack_from(head)
    cipher, digest_hash = f"{_word(name)}-{_word(mode)}", _word(hash_name)
    _require_key(key_bytes)
    _require_hash(digest_hash)
    slots = []
    for number in range(8):
        active, iterations, slot_salt, sector, stripes = _SLOT1.unpack_from(head, 208 + number * _SLOT1.size)
        if active != _ACTIVE:
            continue
        if not 0 < stripes <= STRIPES_MAX or not iterations:
            raise Unreadable("its header makes no sense")
        kdf = Kdf(kind="pbkdf2", salt=slot_salt, iterations=iterations, hash=digest_hash)
        slots.append(
            KeySlot(
                number=str(number),
                kdf=kdf,
                cipher=cipher,
                cipher_key_bytes=key_bytes,
                hash=digest_hash,
                key_bytes=key_bytes,
                first_byte=sector * SECTOR_BYTES,
                stripes=stripes,
            )
        )
    if not rounds:
        raise Unreadable("its header makes no sense")
    proof = Digest(
        kdf=Kdf(kind="pbkdf2", salt=salt, iterations=rounds, hash=digest_hash),
        digest=digest,
        slots=frozenset(slot.number for slot in slots),
    )
    return Luks(
        version=1,
        cipher=cipher,
        first_byte=payload * SECTOR_BYTES,
        size_bytes=0,
        sector_bytes=SECTOR_BYTES,
        iv_first=0,
        slots=tuple(slots),
        digests=(proof,),
    )


def _word(text: bytes) -> str:
    word = text.partition(b"\0")[0]
    if not word.isascii() or not word:
        raise Unreadable("its header makes no sense")
    return word.decode("ascii")


def _require_hash(name: str) -> None:
    if name not in _HASHES or name not in hashlib.algorithms_available:
        raise Unreadable(f"its hash, {name[:32]}, is not known here")


def _require_key(key_bytes: int) -> None:
    if not 16 <= key_bytes <= KEY_BYTES_MAX:
        raise Unreadable(f"a volume key of {key_bytes} bytes is not known here")


def _luks2_text(read: Read, at: int) -> bytes | None:
    """The JSON of the header there; None if there is none, or it is damaged."""
    head = read(at, LUKS2_BYTES)
    (magic, version, size, _, _, sum_name, _, _, _, offset, _, told) = _LUKS2.unpack_from(head)
    name = sum_name.partition(b"\0")[0]
    if magic != (SECOND_MAGIC if at else MAGIC) or version != 2 or offset != at or size not in LUKS2_SIZES:
        return None
    if name not in {b"sha256", b"sha512", b"sha1"}:
        return None
    text = read(at + LUKS2_BYTES, size - LUKS2_BYTES)
    summed = hashlib.new(name.decode())
    summed.update(head[:_CHECKSUM_AT] + bytes(64) + head[_CHECKSUM_AT + 64 :] + text)
    if told[: summed.digest_size] != summed.digest():
        return None
    return text.partition(b"\0")[0]


Number = Annotated[str, Meta(pattern="^[0-9]{1,19}$")]
Small = Annotated[int, Meta(ge=1, le=ITERATIONS_MAX)]
Word = Annotated[str, Meta(max_length=64)]
Base64 = Annotated[str, Meta(max_length=256)]


class _Kdf(msgspec.Struct):
    type: Word
    salt: Base64
    hash: Word = ""
    iterations: Small = 1
    time: Small = 1
    memory: Small = 1
    cpus: Annotated[int, Meta(ge=1, le=64)] = 1


class _Af(msgspec.Struct):
    stripes: Annotated[int, Meta(ge=1, le=STRIPES_MAX)]
    hash: Word


class _Area(msgspec.Struct):
    type: Word
    offset: Number
    encryption: Word = ""
    key_size: Annotated[int, Meta(ge=0, le=KEY_BYTES_MAX)] = 0


class _KeySlot(msgspec.Struct):
    type: Word
    key_size: Annotated[int, Meta(ge=1, le=1 << 20)]
    area: _Area
    af: _Af | None = None
    kdf: _Kdf | None = None


class _Segment(msgspec.Struct):
    type: Word
    offset: Number
    size: Annotated[str, Meta(pattern="^([0-9]{1,19}|dynamic)$")]
    iv_tweak: Number = "0"
    encryption: Word = ""
    sector_size: int = SECTOR_BYTES
    integrity: object = None
    flags: tuple[Word, ...] = ()


class _Digest(msgspec.Struct):
    type: Word
    keyslots: tuple[Word, ...]
    segments: tuple[Word, ...]
    hash: Word
    iterations: Small
    salt: Base64
    digest: Base64


class _Requirements(msgspec.Struct):
    mandatory: tuple[Word, ...] = ()


class _Config(msgspec.Struct):
    requirements: _Requirements = msgspec.field(default_factory=_Requirements)


class _Text(msgspec.Struct):
    keyslots: Annotated[dict[Word, _KeySlot], Meta(max_length=SLOTS_MAX)]
    segments: Annotated[dict[Word, _Segment], Meta(max_length=SLOTS_MAX)]
    digests: Annotated[dict[Word, _Digest], Meta(max_length=SLOTS_MAX)]
    config: _Config


def _luks2(raw: bytes) -> Luks:
    try:
        text = msgspec.json.decode(raw, type=_Text)
        return _of_text(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Unreadable("its header makes no sense") from error


def _of_text(text: _Text) -> Luks:
    needs = text.config.requirements.mandatory
    if needs:
        raise Unreadable(f"it needs what is not known here: {', '.join(needs)[:64]}")
    whole = [(name, each) for name, each in text.segments.items() if "backup" not in " ".join(each.flags)]
    if len(whole) != 1 or whole[0][1].type != "crypt":
        raise Unreadable("its content is in more than one piece, or is not encrypted")
    name, segment = whole[0]
    if segment.integrity is not None:
        raise Unreadable("it has sums for each sector (dm-integrity), which are not known here")
    if segment.sector_size not in {512, 1024, 2048, 4096}:
        raise Unreadable(f"sectors of {segment.sector_size} bytes are not known here")
    size_bytes = 0 if segment.size == "dynamic" else int(segment.size)
    if size_bytes % segment.sector_size or int(segment.offset) % SECTOR_BYTES:
        raise Unreadable("its header makes no sense")
    digests = tuple(_digest(each) for each in text.digests.values() if name in each.segments)
    slots = tuple(_slot(number, each) for number, each in text.keyslots.items() if each.type == "luks2")
    return Luks(
        version=2,
        cipher=segment.encryption,
        first_byte=int(segment.offset),
        size_bytes=size_bytes,
        sector_bytes=segment.sector_size,
        iv_first=int(segment.iv_tweak),
        slots=slots,
        digests=digests,
    )


def _digest(found: _Digest) -> Digest:
    if found.type != "pbkdf2":
        raise Unreadable(f"its digest, {found.type}, is not known here")
    _require_hash(found.hash)
    kdf = Kdf(kind="pbkdf2", salt=b64decode(found.salt), iterations=found.iterations, hash=found.hash)
    digest = b64decode(found.digest)
    # A shorter one would be that of any key.
    if not DIGEST_BYTES_MIN <= len(digest) <= KEY_BYTES_MAX:
        raise Unreadable("its header makes no sense")
    return Digest(kdf=kdf, digest=digest, slots=frozenset(found.keyslots))


def _slot(number: str, found: _KeySlot) -> KeySlot:
    _require_key(found.key_size)
    if found.af is None or found.kdf is None or found.area.type != "raw":
        raise Unreadable("its header makes no sense")
    _require_hash(found.af.hash)
    kdf = found.kdf
    if kdf.type == "pbkdf2":
        _require_hash(kdf.hash)
    argon = kdf.type != "pbkdf2"
    return KeySlot(
        number=number,
        kdf=Kdf(
            kind=kdf.type,
            salt=b64decode(kdf.salt),
            iterations=kdf.time if argon else kdf.iterations,
            hash=kdf.hash,
            memory_kib=kdf.memory if argon else 0,
            lanes=kdf.cpus if argon else 0,
        ),
        cipher=found.area.encryption,
        cipher_key_bytes=found.area.key_size,
        hash=found.af.hash,
        key_bytes=found.key_size,
        first_byte=int(found.area.offset),
        stripes=found.af.stripes,
    )
