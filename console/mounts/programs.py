"""The programs of this machine that mounting and the demo need, each run under a deadline.

A missing one is named with its Debian package; what a failing one said is the error's message.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from protocol.errors import FarshoreError, NotFound, TimedOut
from protocol.printable import printable_lines

RUN_TIMEOUT_S = 60.0
# Program to Debian package (packaging/apt-packages.txt).
PACKAGES = {
    "nbdfuse": "libnbd-bin",
    "fusermount3": "fuse3",
    "losetup": "mount",
    "mount": "mount",
    "umount": "mount",
    "blkid": "util-linux",
    "partx": "util-linux",
    "e2fsck": "e2fsprogs",
    "xfs_repair": "xfsprogs",
    "fsck.vfat": "dosfstools",
    "btrfs": "btrfs-progs",
    "findmnt": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.vfat": "dosfstools",
}


def program_path(name: str) -> str | None:
    """Where it is; programs for file systems may lie outside of a user's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def find_program(name: str) -> str:
    """Its path. Raises NotFound with the Debian package to install."""
    found = program_path(name)
    if found is None:
        package = PACKAGES.get(name, name)
        raise NotFound(
            f"the program {name} is not here", subject=name, next_step=f"apt-get install {package}"
        )
    return found


def call(*words: str | Path, cwd: Path | None = None, timeout_s: float = RUN_TIMEOUT_S) -> tuple[int, str]:
    """Exit code and all output, printable: a check of a file system names its files. Raises NotFound,
    TimedOut."""
    name, *rest = (str(word) for word in words)
    try:
        done = subprocess.run(
            [find_program(name), *rest],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C is for the command that undoes what it did, not for a program in the middle of it.
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
            timeout=timeout_s,
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOut(
            f"{name} was not done after {timeout_s:g} s", subject=shlex.join([name, *rest])
        ) from error
    return done.returncode, printable_lines(done.stdout.strip())


def run(*words: str | Path, cwd: Path | None = None, timeout_s: float = RUN_TIMEOUT_S) -> str:
    """All output of a program that must succeed. Raises FarshoreError with the end of what it said."""
    code, said = call(*words, cwd=cwd, timeout_s=timeout_s)
    if code != 0:
        shown = shlex.join(str(word) for word in words)
        raise FarshoreError(f"{words[0]} ended with {code}: {' '.join(said.split())[-2000:]}", subject=shown)
    return said
