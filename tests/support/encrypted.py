"""Encrypted volumes that others made: cryptsetup encrypts an image in place, without a kernel's help, and
qemu-img writes one of the older form."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.support.clients import MIB, succeed

PASSPHRASE = b"correct horse"
# As little work as the programs allow: what is tested is not how long a guess takes.
FAST_ARGON = ("--pbkdf-memory", "32768", "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "1")
FAST_PBKDF2 = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
HEADER_BYTES = 16 * MIB


def key_file(directory: Path, secret: bytes = PASSPHRASE, name: str = "key") -> Path:
    """A file with a key that nobody else can read."""
    path = directory / name
    path.write_bytes(secret)
    path.chmod(0o600)
    return path


def luks2(cryptsetup: str, image: Path, key: Path, *options: str) -> Path:
    """The content of an image inside LUKS2, in a file beside it."""
    made = image.with_suffix(".luks2")
    shutil.copyfile(image, made)
    # cryptsetup moves the content, and takes twice the header's room for that.
    os.truncate(made, image.stat().st_size + 2 * HEADER_BYTES)
    words = ("reencrypt", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M", "--batch-mode")
    succeed(cryptsetup, *words, *options, "--key-file", key, made)
    # What lay there is encrypted again at its new place, not left at its old one.
    os.truncate(made, image.stat().st_size + HEADER_BYTES)
    return made


def luks1(image: Path, key: Path, cipher: str = "aes-256", mode: str = "xts") -> Path:
    """The same in LUKS1, by QEMU."""
    made = image.with_suffix(".luks1")
    iv = {"xts": "plain64", "cbc": "essiv"}[mode]
    secret = ("--object", f"secret,id=s,file={key}")
    options = f"key-secret=s,iter-time=10,cipher-alg={cipher},cipher-mode={mode},ivgen-alg={iv}"
    options += ",ivgen-hash-alg=sha256" if iv == "essiv" else ""
    succeed("qemu-img", "convert", *secret, "-f", "raw", "-O", "luks", "-o", options, image, made)
    return made


def in_partition(inside: Path, path: Path) -> Path:
    """A disk with a GPT whose second partition has this content; the first has nothing."""
    size = inside.stat().st_size
    with path.open("wb") as file:
        file.truncate(size + 4 * MIB)
    rows = ("mkpart", "first", "1MiB", "2MiB", "mkpart", "second", "2MiB", f"{2 * MIB + size - 1}B")
    succeed("parted", "--script", path, "mklabel", "gpt", *rows)
    with path.open("r+b") as disk, inside.open("rb") as source:
        disk.seek(2 * MIB)
        shutil.copyfileobj(source, disk)
    return path
