"""The option by which commands are given the key of an encrypted volume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.luks.secret import LuksKey

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="FILE", help="Its bytes are the passphrase of what is encrypted (LUKS)."
    ),
]


def key_of(ctx: typer.Context, file: Path | None) -> LuksKey:
    """The key of a command, overwritten when that ends. Raises FarshoreError for a file that is none."""
    key = LuksKey(file)
    ctx.call_on_close(key.wipe)
    return key
