"""Other people's programs that the demo writes and checks with.

Their verdicts are the proofs: this project's code does not judge itself.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from console.mounts.programs import call, program_path, run
from protocol.errors import FarshoreError, NotFound

# Program to Debian package (packaging/apt-packages.txt).
PACKAGES = {
    "nbdcopy": "libnbd-bin",
    "qemu-img": "qemu-utils",
    "fio": "fio",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
}
TOOL_TIMEOUT_S = 120.0


def require_tools() -> None:
    """Raises NotFound that names every missing program and its package."""
    missing = [name for name in PACKAGES if program_path(name) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[name] for name in missing}))
        named = ", ".join(f"{name} (package {PACKAGES[name]})" for name in missing)
        raise NotFound(
            f"the demo needs programs that are not here: {named}",
            subject=missing[0],
            next_step=f"apt-get install {packages}, or `make setup` in the source tree",
        )


def copy(source: str | Path, target: str | Path, *, cwd: Path) -> None:
    """nbdcopy, everything flushed at the end. Either may be an NBD URI."""
    run("nbdcopy", "--flush", source, target, cwd=cwd, timeout_s=TOOL_TIMEOUT_S)


def identical(one: str | Path, other: str | Path, *, cwd: Path) -> tuple[bool, str]:
    """qemu-img compare: whether every byte is equal, and what it said. Raises FarshoreError if it could not
    read one of them."""
    words = ("qemu-img", "compare", "-f", "raw", "-F", "raw", one, other)
    code, text = call(*words, cwd=cwd, timeout_s=TOOL_TIMEOUT_S)
    if code > 1:
        raise FarshoreError(f"qemu-img compare: {text[-2000:]}", subject=str(other))
    return code == 0, text


def fsck(image: Path) -> tuple[bool, str]:
    """e2fsck -fn: whether the file system is clean, and what it found."""
    code, text = call("e2fsck", "-fn", image, timeout_s=TOOL_TIMEOUT_S)
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
