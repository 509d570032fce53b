"""LUKS headers that a stranger may have written: what is read, and why others are not (C50)."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.luks.header import Luks, read_header
from console.luks.opening import volume_key
from console.luks.unreadable import Unreadable, WrongKey
from tests.unit.console.luks.luks2_bytes import HEADER_BYTES, header, text

Change = Callable[[dict[str, Any]], None]


def read(data: bytes) -> Luks:
    return read_header(lambda at, length: data[at : at + length].ljust(length, b"\0"))


def test_c50_a_luks2_header_is_read() -> None:
    found = read(header(text()))
    assert (found.version, found.cipher, found.first_byte) == (2, "aes-xts-plain64", 16 << 20)
    assert (found.size_bytes, found.sector_bytes, found.iv_first) == (0, 4096, 0)
    (slot,) = found.slots
    assert (slot.number, slot.first_byte, slot.stripes, slot.kdf.iterations) == ("0", 32768, 4000, 1000)


def test_c50_the_second_header_serves_where_the_first_is_damaged() -> None:
    first, second = bytearray(header(text())), header(text(), at=HEADER_BYTES)
    first[5000] ^= 1
    assert read(bytes(first) + second).version == 2
    damaged = bytearray(second)
    damaged[5000] ^= 1
    with pytest.raises(Unreadable, match="both of its LUKS2 headers are damaged"):
        read(bytes(first + damaged))


def changed(path: str, value: object) -> Change:
    """The member at a path of names is another."""

    def change(of: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for name in parents:
            of = of[name]
        of[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed("config/requirements", {"mandatory": ["online-reencrypt-v2"]}), "online-reencrypt-v2"),
        (changed("segments/0/integrity", {"type": "hmac(sha256)"}), "dm-integrity"),
        (changed("segments/0/type", "linear"), "not encrypted"),
        (changed("segments/1", {"type": "crypt", "offset": "0", "size": "512"}), "more than one piece"),
        (changed("segments/0/sector_size", 8192), "8192"),
        (changed("segments/0/offset", "-1"), "makes no sense"),
        (changed("segments/0/size", "513"), "makes no sense"),
        (changed("keyslots/0/af/stripes", 1 << 30), "makes no sense"),
        (changed("keyslots/0/area/key_size", 1 << 30), "makes no sense"),
        (changed("keyslots/0/key_size", 1 << 19), "volume key of"),
        (changed("keyslots/0/kdf/iterations", 0), "makes no sense"),
        (changed("keyslots/0/kdf/hash", "md5"), "md5"),
        (changed("keyslots/0/kdf/salt", "not base 64!"), "makes no sense"),
        (changed("digests/0/type", "tpm"), "tpm"),
        (changed("keyslots", {}), None),
    ],
)
def test_c50_what_is_not_known_is_named(change: Change, said: str | None) -> None:
    of = text()
    change(of)
    if said is None:
        with pytest.raises(Unreadable, match="no key slot"):
            opened(read(header(of)))
        return
    with pytest.raises(Unreadable, match=said):
        read(header(of))


def opened(found: Luks) -> bytes:
    return volume_key(found, lambda _at, length: bytes(length), bytearray(b"key"), renew=lambda: None)


@pytest.mark.parametrize(
    ("kdf", "said"),
    [
        ({"type": "argon2id", "time": 4, "memory": 4 << 20, "cpus": 4}, "4096 MiB"),
        ({"type": "argon2id", "time": 1 << 20, "memory": 1 << 20, "cpus": 4}, "1024 MiB 1048576 times"),
        ({"type": "scrypt"}, "scrypt"),
        ({"type": "argon2id", "time": 4, "memory": 1, "cpus": 4}, "makes no sense"),
    ],
)
def test_c50_a_slot_may_not_ask_for_any_memory(kdf: dict[str, Any], said: str) -> None:
    of = text()
    of["keyslots"]["0"]["kdf"] = {"salt": of["keyslots"]["0"]["kdf"]["salt"], **kdf}
    with pytest.raises(Unreadable, match=said):
        opened(read(header(of)))


@pytest.mark.parametrize("cipher", ["cipher_null-ecb", "serpent-xts-plain64", "aes-ecb-plain64", "aes", ""])
def test_c50_an_unknown_cipher_is_named_and_none_is_not_taken(cipher: str) -> None:
    """A slot without encryption would have its volume key for every passphrase."""
    of = text()
    of["keyslots"]["0"]["area"]["encryption"] = cipher
    with pytest.raises(Unreadable, match="its cipher"):
        opened(read(header(of)))


def test_c50_a_key_is_believed_by_its_digest_only() -> None:
    with pytest.raises(WrongKey):
        opened(read(header(text())))
    of = text()
    for short in ("", "AA==", b64encode(bytes(19)).decode()):
        of["digests"]["0"]["digest"] = short
        with pytest.raises(Unreadable, match="makes no sense"):
            read(header(of))


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (6, struct.pack(">H", 3), "version 3"),
        (108, struct.pack(">I", 1 << 20), "volume key of"),
        (72, b"md5\0", "md5"),
        (164, struct.pack(">I", 0), "makes no sense"),
        (208 + 44, struct.pack(">I", 1 << 30), "makes no sense"),
        (8, b"\xff\xff", "makes no sense"),
    ],
)
def test_c50_luks1_is_bounded_too(at: int, value: bytes, said: str) -> None:
    data = bytearray(
        struct.pack(
            ">6sH32s32s32sII20s32sI40s",
            b"LUKS\xba\xbe", 1, b"aes", b"xts-plain64", b"sha256", 4096, 64, b"d" * 20, b"s" * 32, 1000, b"",
        )
        + struct.pack(">II32sII", 0x00AC71F3, 1000, b"s" * 32, 8, 4000)
    )  # fmt: skip
    assert read(bytes(data)).first_byte == 4096 * 512
    data[at : at + len(value)] = value
    with pytest.raises(Unreadable, match=said):
        read(bytes(data))


@given(st.binary(max_size=600), st.integers(0, 1023))
def test_c50_any_bytes_are_a_header_or_unreadable(junk: bytes, at: int) -> None:
    data = bytearray(header(text()))
    data[at : at + len(junk)] = junk
    for each in (bytes(data), b"LUKS\xba\xbe\0\1" + junk):
        with suppress(Unreadable):
            assert read(each).version in {1, 2}
