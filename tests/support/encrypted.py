"""Encrypted volumes that others made: cryptsetup encrypts an image in place, without a kernel's help, and
qemu-img fills one of the older form."""

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
LUKS1_HEADER_BYTES = 4 * MIB


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


def luks1(cryptsetup: str, image: Path, key: Path, cipher: str = "aes-xts-plain64", bits: int = 512) -> Path:
    """The same in LUKS1: cryptsetup cannot encrypt an image in place there without a kernel, so it writes
    the header, and QEMU the content. QEMU's own header takes as many iterations as it measures on a processor
    that may be busy."""
    made = image.with_suffix(".luks1")
    with made.open("wb") as file:
        file.truncate(image.stat().st_size + LUKS1_HEADER_BYTES)
    words = ("luksFormat", "--type", "luks1", "--batch-mode", "--pbkdf-force-iterations", "1000")
    layout = ("--cipher", cipher, "--key-size", str(bits), "--align-payload", str(LUKS1_HEADER_BYTES // 512))
    succeed(cryptsetup, *words, *layout, "--key-file", key, made)
    secret = ("--object", f"secret,id=s,file={key}")
    into = f"driver=luks,key-secret=s,file.filename={made}"
    succeed("qemu-img", "convert", *secret, "-f", "raw", "-n", "--target-image-opts", image, into)
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
