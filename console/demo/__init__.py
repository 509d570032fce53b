"""`farshore demo`: the main job on this machine, on real input, every claim checked by others' programs.

`run` is the order of things, `writing`, `restoring` and `crashing` are the steps, `report` prints them.
"""

from __future__ import annotations

from console.demo.run import main

__all__ = ["main"]
