"""Loop devices: files as block devices of this machine's kernel.

A file's devices are found by what the kernel says of them, not by what was remembered: that is true after any
crash, and when nbdfuse is gone and its file cannot be looked at.
"""

from __future__ import annotations

from pathlib import Path

from console.local_time import monotonic, pause
from console.mounts.programs import call, run
from protocol.errors import Busy

BLOCK_DEVICES = Path("/sys/block")
DELETED = " (deleted)"
DETACH_TIMEOUT_S = 10.0
POLL_S = 0.02


def make_loop(file: Path, *, read_only: bool, offset: int = 0, size_bytes: int = 0) -> str:
    """A new device on a part of the file, 0 bytes for all that follows; its path. Raises FarshoreError."""
    # The file's own cache is not needed as well: what the device holds back is one copy, not two.
    words = ["--find", "--show", "--direct-io=on", *(["--read-only"] if read_only else [])]
    if offset or size_bytes:
        words += ["--offset", str(offset), "--sizelimit", str(size_bytes)]
    return run("losetup", *words, file)


def loops_of(file: Path) -> list[str]:
    """The devices on a file, by its path."""
    found = []
    for entry in sorted(BLOCK_DEVICES.glob("loop*")):
        try:
            backing = (entry / "loop" / "backing_file").read_text(errors="surrogateescape")
        except OSError:
            continue  # not in use, or given back at this moment
        # The kernel says so of a file that it was told is no more, as when nbdfuse has ended.
        if backing.removesuffix("\n").removesuffix(DELETED) == str(file):
            found.append(f"/dev/{entry.name}")
    return found


def drop_loops(file: Path) -> None:
    """Give a file's devices back. Raises Busy for one that is in use."""
    for device in loops_of(file):
        call("losetup", "--detach", device)
    deadline = monotonic() + DETACH_TIMEOUT_S
    while left := loops_of(file):
        if monotonic() > deadline:
            raise Busy(
                f"{left[0]} is in use", subject=left[0], next_step=f"end what uses it: fuser -v {left[0]}"
            )
        pause(POLL_S)
