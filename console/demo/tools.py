"""Other people's programs that the demo writes and checks with; each runs under a deadline.

Their verdicts are the proofs: this project's code does not judge itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import FarshoreError, NotFound, TimedOut

# Program to Debian package (packaging/apt-packages.txt).
PACKAGES = {
    "nbdcopy": "libnbd-bin",
    "qemu-img": "qemu-utils",
    "fio": "fio",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
}
TOOL_TIMEOUT_S = 120.0


def find_tool(name: str) -> str | None:
    """Its path; file system tools may lie outside of a user's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def require_tools() -> None:
    """Raises NotFound that names every missing program and its package."""
    missing = [name for name in PACKAGES if find_tool(name) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[name] for name in missing}))
        named = ", ".join(f"{name} (package {PACKAGES[name]})" for name in missing)
        raise NotFound(
            f"the demo needs programs that are not here: {named}",
            subject=missing[0],
            next_step=f"apt-get install {packages}, or `make setup` in the source tree",
        )


def call(words: Sequence[str | Path], *, cwd: Path, timeout_s: float = TOOL_TIMEOUT_S) -> tuple[int, str]:
    """Exit code and all output. Raises TimedOut."""
    program, *rest = (str(word) for word in words)
    command = [find_tool(program) or program, *rest]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOut(
            f"{program} was not done after {timeout_s:g} s", subject=shlex.join(command)
        ) from error
    return done.returncode, done.stdout


def run(words: Sequence[str | Path], *, cwd: Path, timeout_s: float = TOOL_TIMEOUT_S) -> str:
    """All output of a program that must succeed. Raises FarshoreError with the end of what it said."""
    code, text = call(words, cwd=cwd, timeout_s=timeout_s)
    if code != 0:
        shown = shlex.join(str(word) for word in words)
        raise FarshoreError(f"{words[0]} ended with {code}: {text.strip()[-2000:]}", subject=shown)
    return text


def copy(source: str | Path, target: str | Path, *, cwd: Path) -> None:
    """nbdcopy, everything flushed at the end. Either may be an NBD URI."""
    run(["nbdcopy", "--flush", source, target], cwd=cwd)


def identical(one: str | Path, other: str | Path, *, cwd: Path) -> tuple[bool, str]:
    """qemu-img compare: whether every byte is equal, and what it said. Raises FarshoreError if it could not
    read one of them."""
    words = ["qemu-img", "compare", "-f", "raw", "-F", "raw", one, other]
    code, text = call(words, cwd=cwd)
    if code > 1:
        raise FarshoreError(f"qemu-img compare: {text.strip()[-2000:]}", subject=str(other))
    return code == 0, text.strip()


def fsck(image: Path) -> tuple[bool, str]:
    """e2fsck -fn: whether the file system is clean, and what it found."""
    code, text = call(["e2fsck", "-fn", image], cwd=image.parent)
    counted = re.search(r"(\d+)/\d+ files", text)
    if code == 0 and counted:
        return True, f"{counted[1]} files"
    return False, f"it ends with {code}"


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fio_words(uri: str, name: str, *options: str) -> list[str]:
    """fio's command line for one job on an export."""
    return ["fio", f"--name={name}", "--ioengine=nbd", f"--uri={uri}", "--randrepeat=0", *options]
