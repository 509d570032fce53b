"""The process that becomes nbdfuse: marked as one that the kernel's write-back waits for.

The kernel may need nbdfuse to write dirty pages back before it gets memory, and nbdfuse may need memory to do
it. PR_SET_IO_FLUSHER (prctl(2)) says so: what the process allocates never waits for such pages. The mark
outlives exec. It needs CAP_SYS_RESOURCE; without it nbdfuse runs all the same, and the first line on standard
error says what is missing.

    python launcher.py [--end-with-parent] PROGRAM ARG…
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_IO_FLUSHER = 57
UNMARKED = "farshore: not marked as an I/O flusher"
END_WITH_PARENT = "--end-with-parent"


def _prctl(option: int, value: int) -> str:
    """Empty when done, else why not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) == 0:
        return ""
    return os.strerror(ctypes.get_errno())


def main(words: list[str]) -> None:
    """Never returns: becomes the program."""
    if words and words[0] == END_WITH_PARENT:
        # SIGTERM: nbdfuse unmounts before it ends.
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        words = words[1:]
    why = _prctl(PR_SET_IO_FLUSHER, 1)
    if why:
        print(f"{UNMARKED}: {why} (needs CAP_SYS_RESOURCE)", file=sys.stderr, flush=True)
    os.execv(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
