"""How a module of ours is started as a child process."""

from __future__ import annotations

import os
import sys

_LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launch.py")


def child_words(module: str, *words: str, bytecode: bool = True) -> list[str]:
    """The command line that runs a module of ours as a child process; without `bytecode` it writes no .pyc.

    By the launcher's path and with -P: neither the current directory nor another installed package is taken
    for ours, and the child has the code of its parent.
    """
    return [sys.executable, "-P", *([] if bytecode else ["-B"]), _LAUNCHER, module, *words]
