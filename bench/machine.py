"""What a figure depends on: the machine, the kernel, and the programs that were measured."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from importlib import metadata
from pathlib import Path

from tests.support.sites import farshore_command

ROOT = Path(__file__).resolve().parents[1]


def facts() -> dict[str, str]:
    """Names and values, ready to print."""
    return {
        "cpu": f"{os.cpu_count()} × {_proc('/proc/cpuinfo', 'model name')}",
        "memory": _proc("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "farshore": _first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        # FARSHORE_COMMAND can name another build: a figure must say what it is a figure of.
        "farshore command": shlex.join(farshore_command()),
        "libzmq binding": metadata.version("pyzmq"),
        "lmdb binding": metadata.version("lmdb"),
        "qemu": _first_line("qemu-storage-daemon", "--version"),
        "fio": _first_line("fio", "--version"),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _proc(path: str, key: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return "unknown"


def _first_line(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "not installed"
    lines = result.stdout.splitlines()
    return lines[0] if lines else "unknown"
