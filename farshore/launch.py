"""How each process of Farshore begins: its packages are found where they are, whatever else is installed.

The sources import each other by short names (`from protocol.events import …`), which others use too:
python-daemon installs a package `daemon`. So ours are installed inside of this one; in a checkout they lie
beside it:

    site-packages/farshore/launch.py     site-packages/farshore/protocol/   …
    CHECKOUT/farshore/launch.py          CHECKOUT/protocol/                 …

A process begins here, and a finder that comes before all others looks our names up there, and only those:
nothing is added to sys.path (docs/decisions/0021).

    farshore, farshore-hook                         the two commands
    python -P …/farshore/launch.py MODULE ARG…      a child process: as `python -m MODULE ARG…`

Rule: no other package of ours is imported before `find_own_packages` was called.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PACKAGES = ("protocol", "engine", "site_primary", "site_secondary", "daemon", "console")

# As ExitCode.INTERRUPTED of `protocol.errors`, which may not be loaded yet.
_INTERRUPTED = 130

_HERE = os.path.dirname(os.path.abspath(__file__))
_ABOVE = os.path.dirname(_HERE)


class _OwnPackages:
    """A finder for `sys.meta_path`: top-level names of ours, each in the directory that holds it."""

    def __init__(self) -> None:
        installed = os.path.isdir(os.path.join(_HERE, PACKAGES[0]))
        self._places = dict.fromkeys(PACKAGES, _HERE if installed else _ABOVE)
        # A child was started by path: another package of this name may come first on its sys.path.
        self._places["farshore"] = _ABOVE

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        place = self._places.get(name)
        return PathFinder.find_spec(name, [place], target) if place is not None else None


def find_own_packages() -> None:
    """From now on in this process, our names mean our packages."""
    sys.meta_path.insert(0, _OwnPackages())


def main() -> int:
    """The command `farshore`; returns its exit code."""
    find_own_packages()
    try:
        from console import cli

        return cli.main()
    except KeyboardInterrupt:
        # While the command is still being loaded, which takes a quarter of a second.
        return _INTERRUPTED


def hook() -> int:
    """The command `farshore-hook`; returns its exit code."""
    find_own_packages()
    from console import hooks

    return hooks.main()


def _run_child() -> None:
    find_own_packages()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run_child()
