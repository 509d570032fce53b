"""Real NBD clients, each run as a program under a deadline: a client that hangs is a failed test.

nbdsh's module belongs to Debian's Python, so its scripts run there. The command `nbdsh` is not used: it takes
the first python3 of the PATH, which in an environment like ours is another one.
"""

from __future__ import annotations

import random
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path

CLIENT_TIMEOUT_S = 120.0
NBDSH_PYTHON = "/usr/bin/python3"
KIB = 1 << 10
MIB = 1 << 20


class ClientFailed(AssertionError):
    """A client ended with another exit code than the test expects."""


def call(
    *words: str | Path, timeout_s: float = CLIENT_TIMEOUT_S, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program, whatever its exit code."""
    return subprocess.run(
        [str(word) for word in words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def succeed(*words: str | Path, timeout_s: float = CLIENT_TIMEOUT_S, stdin: str = "") -> str:
    """Run a program that must succeed; its standard output."""
    result = call(*words, timeout_s=timeout_s, stdin=stdin)
    if result.returncode != 0:
        shown = " ".join(str(word) for word in words)[:500]
        said = f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        raise ClientFailed(f"{shown} ended with {result.returncode}\n{said}")
    return result.stdout


def nbdsh(uri: str, *scripts: str, timeout_s: float = CLIENT_TIMEOUT_S) -> str:
    """Run the scripts one after another with `h` connected to `uri`; what they print.

    Each may be indented as its caller likes.
    """
    code = "\n".join([f"uri = {uri!r}", *map(textwrap.dedent, scripts)])
    return succeed(NBDSH_PYTHON, "-m", "nbd", "-u", uri, "-c", code, timeout_s=timeout_s)


def same_content(image: Path, uri: str) -> None:
    """Fail unless `qemu-img compare` finds image and export identical."""
    succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)


def patchy_image(path: Path, size_bytes: int, *, seed: int) -> Path:
    """A raw image of random 64 KiB pieces with holes and runs of zeroes between them."""
    rng = random.Random(seed)
    with path.open("wb") as image:
        image.truncate(size_bytes)
        for offset in range(0, size_bytes, 64 * KIB):
            kind = rng.random()
            if kind < 0.5:
                image.seek(offset)
                image.write(rng.randbytes(64 * KIB))
            elif kind < 0.6:
                image.seek(offset)
                image.write(bytes(64 * KIB))
    return path


def ext4_image(path: Path, size: str, tree: Path, *, mkfs: str = "mkfs.ext4") -> Path:
    """An ext4 file system in a raw image, filled with the files under `tree`."""
    succeed(mkfs, "-q", "-F", "-d", tree, "-E", "lazy_itable_init=0", path, size)
    return path


def fsck(image: Path, *, program: str = "e2fsck") -> None:
    """Fail unless the file system in `image` is clean."""
    succeed(program, "-fn", image)


def lines(words: Sequence[str]) -> str:
    """Commands, one a line, as `qemu-io` reads them."""
    return "\n".join(words) + "\n"
