"""`farshore peer`: whom a site trusts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from console.figures import UNKNOWN, age_text
from console.session import session_of
from protocol.commands import PeerAdd, PeerList

app = typer.Typer(help="The other site of a pair.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def add(ctx: typer.Context, token: Annotated[str, typer.Argument(metavar="TOKEN")]) -> None:
    """Trust a peer by the token that its `farshore site token` prints. Do the same at the other site."""
    session = session_of(ctx)
    data = session.call(PeerAdd(token=token.strip()))

    def show() -> None:
        session.output.line(f"peer {data['peer']} {'added' if data.get('added', True) else 'known already'}")
        session.output.fields(
            [("endpoint", data.get("endpoint") or ""), ("fingerprint", data.get("fingerprint") or "")]
        )

    session.output.result("peer.add", data, show)


@app.command("list")
def list_peers(ctx: typer.Context) -> None:
    """Every peer, and when it was last heard."""
    session = session_of(ctx)
    data = session.call(PeerList())
    session.output.result(
        "peer.list",
        data,
        lambda: session.output.table(
            ("peer", "connected", "heard", "endpoint", "groups", "fingerprint"),
            [_row(peer) for peer in data["peers"]],
            empty="no peers: farshore peer add TOKEN",
        ),
    )


def _row(peer: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(peer["peer"]),
        "yes" if peer.get("connected") else "no",
        age_text(peer.get("heard_s")),
        peer.get("endpoint") or UNKNOWN,
        " ".join(peer.get("groups") or []) or UNKNOWN,
        str(peer.get("fingerprint") or UNKNOWN),
    )
