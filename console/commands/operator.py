"""`farshore operator`: who may command a site over the network, and this user's own key for that."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from console.client import generate_operator_keys
from console.output import Output
from console.session import session_of
from console.sites_file import sites_path
from console.unfinished_file import UnfinishedFile
from farshore.plain_files import read_plain
from protocol.commands.base import Reply
from protocol.commands.operator import (
    OperatorAdd,
    OperatorList,
    OperatorListReply,
    OperatorRemove,
)
from protocol.endpoints import is_every_address
from protocol.errors import UsageError, system_error
from protocol.toml_text import toml_string

app = typer.Typer(
    help="Who may command this site over the network.", no_args_is_help=True, rich_markup_mode=None
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The operator's name at this site.")]
KEY_FILE = "operator.key"


class Role(StrEnum):
    """What an operator may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class OperatorKeyReply(Reply, frozen=True, kw_only=True):
    """The public key (Z85), and the file that has both."""

    key: str
    key_file: str


@app.command()
def key(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Option("--file", help="By default operator.key beside your sites.toml.")
    ] = None,
) -> None:
    """Print your public key; make the pair first, if there is none. The secret one never leaves the file."""
    session = session_of(ctx)
    path = file if file is not None else sites_path().parent / KEY_FILE
    public = _public_key(path)
    data = OperatorKeyReply(key=public, key_file=str(path))

    def show() -> None:
        session.output.line(data.key)
        session.output.note(
            f"next: at the site, as its admin: `farshore operator add NAME '{data.key}' --role viewer`"
        )

    session.output.result("operator.key", data, show)


def _public_key(path: Path) -> str:
    """Of the file's pair; a new one if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    public, secret = generate_operator_keys()
    if os.path.lexists(path):
        try:
            words = read_plain(path).decode("ascii", errors="replace").split()
        except OSError as error:
            raise system_error(error) from error
        if len(words) != 2 or len(words[0]) != len(public):
            raise UsageError(
                f"{path} holds no key pair", subject=str(path), next_step="name another one with --file"
            )
        return words[0]
    with UnfinishedFile(path, replace=False) as made:
        made.write(f"{public} {secret}\n".encode("ascii"))
        made.make_durable()
        made.finish()
    return public


# A key may begin with a hyphen, as one in 85 does.
@app.command(context_settings={"ignore_unknown_options": True})
def add(
    ctx: typer.Context,
    name: NameArgument,
    key: Annotated[str, typer.Argument(metavar="KEY", help="As `farshore operator key` prints it there.")],
    role: Annotated[Role, typer.Option(help="What the operator may do.")] = Role.VIEWER,
) -> None:
    """Let an operator command this site with a key; at once, and written into site.toml.

    A viewer looks, an operator runs the service, an admin may also destroy history and change whom the site
    trusts."""
    session = session_of(ctx)
    data = session.call(OperatorAdd(operator=name, key=key, role=role.value))

    def show() -> None:
        session.output.line(f"{name} is {role.value} of {session.site.name}")
        session.output.note(*_entry(session.site.name, data))

    session.output.result("operator.add", data, show)


@app.command("list")
def list_operators(ctx: typer.Context) -> None:
    """Who may command this site over the network."""
    session = session_of(ctx)
    data = session.call(OperatorList())
    session.output.result("operator.list", data, lambda: _show(session.output, data))


@app.command()
def remove(ctx: typer.Context, name: NameArgument) -> None:
    """Let an operator command this site no longer; connections that there are lose the right, too."""
    session = session_of(ctx)
    data = session.call(OperatorRemove(operator=name))
    session.output.result("operator.remove", data, lambda: session.output.line(f"{name} is removed"))


def _entry(site: str, data: OperatorListReply) -> tuple[str, ...]:
    """What the operator writes into sites.toml."""
    if data.endpoint is None:
        return ('nobody can connect yet: set remote_control = "tcp://HOST:PORT" in site.toml, and restart',)
    # Where the site listens on every address, only the operator knows by which of them it is reached.
    every = is_every_address(data.endpoint)
    endpoint = f"tcp://HOST:{data.endpoint.rpartition(':')[2]}" if every else data.endpoint
    return (
        "the operator's ~/.config/farshore/sites.toml"
        + (", with this machine's name or address as HOST:" if every else ":"),
        f"[sites.{toml_string(site)}]",
        f"control = {toml_string(endpoint)}",
        f"server_key = {toml_string(data.server_key)}",
        'operator_key_file = "~/.config/farshore/operator.key"',
    )


def _show(output: Output, data: OperatorListReply) -> None:
    rows = [(each.operator, each.role, each.key) for each in data.operators]
    output.table(("operator", "role", "key"), rows, empty="no operators: `farshore operator add NAME KEY`")
    output.note(f"they connect to {data.endpoint}" if data.endpoint else "remote_control is not set")
