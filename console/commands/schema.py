"""`farshore schema`: what `--json` prints, as JSON Schema. Asks no site."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from console.kinds import KINDS, schema
from console.session import session_of
from protocol.commands.base import Reply


class SchemaReply(Reply, frozen=True, kw_only=True):
    """A kind, and the JSON Schema of a line of it."""

    kind: str
    schema: dict[str, Any]


class SchemaListReply(Reply, frozen=True, kw_only=True):
    """Every kind, by name."""

    kinds: list[str]


def show_schema(
    ctx: typer.Context,
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="As a line's `kind` says; without, all are listed.")
    ] = None,
) -> None:
    """The JSON Schema of a line that --json prints."""
    output = session_of(ctx).output
    if kind is None:
        kinds = SchemaListReply(kinds=sorted(KINDS))
        output.result("schema.list", kinds, lambda: output.lines("\n".join(kinds.kinds)))
        return
    data = SchemaReply(kind=kind, schema=schema(kind))
    output.result("schema", data, lambda: output.lines(json.dumps(data.schema, indent=2)))
