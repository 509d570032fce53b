"""`farshore peer`: whom a site trusts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from console.figures import UNKNOWN, age_text, parse_rate, rate_text
from console.link_rates import parse_window, rate_now_text, window_text
from console.session import Session, session_of
from protocol.commands.base import check_name
from protocol.commands.peer import (
    PeerAdd,
    PeerInfo,
    PeerList,
    PeerRemove,
    PeerRename,
    PeerReplace,
    PeerRotateKey,
    PeerSet,
    RateWindow,
)
from protocol.endpoints import check_dialled_endpoint, dialled
from protocol.errors import UsageError

app = typer.Typer(help="The other site of a pair.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def add(ctx: typer.Context, token: Annotated[str, typer.Argument(metavar="TOKEN")]) -> None:
    """Trust a peer by the token that its `farshore site token` prints. Do the same at the other site."""
    session = session_of(ctx)
    data = session.call(PeerAdd(token=token.strip()))

    def show() -> None:
        session.output.line(f"peer {data.peer} {'added' if data.added else 'known already'}")
        session.output.fields([("endpoint", data.endpoint or ""), ("fingerprint", data.fingerprint)])

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
            ("peer", "connected", "heard", "endpoint", "groups", "rate", "compress", "fingerprint"),
            [_row(session, peer) for peer in data.peers],
            empty="no peers: `farshore peer add TOKEN`",
        ),
    )


class Compression(StrEnum):
    """How frames travel to a peer."""

    NONE = "none"
    ZSTD = "zstd"


@app.command("set")
def set_options(
    ctx: typer.Context,
    peer: Annotated[str, typer.Argument(metavar="NAME")],
    rate: Annotated[
        str | None, typer.Option(metavar="RATE|none", help="At most this a second: 10M is 10 MiB/s.")
    ] = None,
    compress: Annotated[
        Compression | None, typer.Option(help="zstd costs this site about 1 ms for each MiB.")
    ] = None,
    between: Annotated[
        str | None,
        typer.Option(metavar="[DAYS ]HH:MM-HH:MM|none", help="That rate then only; none: no such windows."),
    ] = None,
    zone: Annotated[
        str | None, typer.Option("--tz", metavar="ZONE", help="Of --between: Europe/Berlin; else UTC.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="Where the peer listens now.")
    ] = None,
) -> None:
    """Change how and where this site sends to a peer: at once, for all groups, and after a restart.

    With --between the rate holds each day from one time to another, also over midnight; else the other one.
    'mon-fri 08:00-18:00': on the days on which it begins.
    """
    session = session_of(ctx)
    if rate is None and compress is None and endpoint is None and between is None:
        raise UsageError(
            "nothing to set",
            subject=peer,
            next_step="--rate 10M, --compress zstd or --endpoint tcp://HOST:PORT",
        )
    window = _window(rate, between, zone)
    data = session.call(
        PeerSet(
            peer=check_name(peer, "peer"),
            rate_bytes_s=None if rate is None or window else parse_rate(rate),
            compress=None if compress is None else compress.value,
            endpoint=None if endpoint is None else check_dialled_endpoint(dialled(endpoint)),
            window=window,
            drop_windows=between == "none",
        )
    )

    def show() -> None:
        session.output.fields(
            [
                ("peer", data.peer),
                ("endpoint", data.endpoint or UNKNOWN),
                ("rate", rate_text(data.rate_bytes_s)),
                *(("between", window_text(each)) for each in data.windows),
                *([("now", rate_now_text(data, session.zone))] if data.windows else []),
                ("compress", data.compress),
            ]
        )

    session.output.result("peer.set", data, show)


def _window(rate: str | None, between: str | None, zone: str | None) -> RateWindow | None:
    if between is None or between == "none":
        if zone is not None:
            raise UsageError("--tz is that of --between", subject=zone, next_step="--between 08:00-18:00")
        return None
    return parse_window(between, rate, zone)


@app.command("replace")
def replace_peer(
    ctx: typer.Context,
    peer: Annotated[str, typer.Argument(metavar="NAME", help="The peer that is gone.")],
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Of the site that takes its place.")],
) -> None:
    """Let a site that was made anew take the place of a peer that is gone; it gets a whole copy."""
    session = session_of(ctx)
    data = session.call(PeerReplace(peer=check_name(peer, "peer"), token=token.strip()))
    session.output.result("peer.replace", data, lambda: _show_who(session, data))


@app.command("rotate-key")
def rotate_key(
    ctx: typer.Context,
    peer: Annotated[str, typer.Argument(metavar="NAME")],
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="What its site rotate-key printed.")],
) -> None:
    """Take a peer by its next key too, until it uses that."""
    session = session_of(ctx)
    data = session.call(PeerRotateKey(peer=check_name(peer, "peer"), token=token.strip()))

    def show() -> None:
        _show_who(session, data)
        if data.next_fingerprint is None:
            session.output.note(
                f"{peer} is known by that key already",
                "next: `farshore site rotate-key` there prints the token of its next one",
            )

    session.output.result("peer.rotate-key", data, show)


@app.command()
def rename(
    ctx: typer.Context,
    peer: Annotated[str, typer.Argument(metavar="OLD")],
    new: Annotated[str, typer.Argument(metavar="NEW")],
) -> None:
    """Call a peer by another name here, as after it was renamed in its site.toml."""
    session = session_of(ctx)
    data = session.call(PeerRename(peer=check_name(peer, "peer"), new=check_name(new, "peer")))
    session.output.result("peer.rename", data, lambda: _show_who(session, data))


@app.command()
def remove(ctx: typer.Context, peer: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Trust a peer no longer; refused while a pair is with it."""
    session = session_of(ctx)
    data = session.call(PeerRemove(peer=check_name(peer, "peer")))
    session.output.result("peer.remove", data, lambda: session.output.line(f"peer {data.peer} removed"))


def _show_who(session: Session, data: PeerInfo) -> None:
    session.output.fields(
        [
            ("peer", data.peer),
            ("endpoint", data.endpoint or UNKNOWN),
            ("groups", " ".join(data.groups) or UNKNOWN),
            ("fingerprint", data.fingerprint),
            ("next key", data.next_fingerprint or UNKNOWN),
        ]
    )


def _row(session: Session, peer: PeerInfo) -> tuple[str, ...]:
    return (
        peer.peer,
        "yes" if peer.connected else "no",
        age_text(peer.heard_s),
        peer.endpoint or UNKNOWN,
        " ".join(peer.groups) or UNKNOWN,
        rate_now_text(peer, session.zone),
        peer.compress,
        peer.fingerprint,
    )
