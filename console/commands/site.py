"""`farshore site` and `farshore demo`: make a site, run its daemon, introduce it to another.

What touches a data directory is the daemon's: `init` and `adopt` run it as a child, `run` becomes it.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec.structs import asdict

from console.confirming import confirmed
from console.service_unit import (
    ACCOUNT,
    CONTROL_MODE,
    begin_service,
    directory_of,
    own_doors,
    require_service,
    unit_of,
)
from console.session import Session, session_of
from console.sites import registering
from console.sites_file import SiteEntry, known_sites
from farshore.children import child_words
from protocol.commands.base import ReplyType, check_name
from protocol.commands.site import SiteAccept, SiteAdoptReply, SiteInitReply, SiteRotateKey, SiteToken
from protocol.endpoints import check_endpoint, control_endpoint, dialled, is_every_address
from protocol.errors import FarshoreError, UsageError, error_from_dict
from protocol.toml_text import toml_string

app = typer.Typer(help="One daemon and its data directory.", no_args_is_help=True, rich_markup_mode=None)


class SiteMade(SiteInitReply, frozen=True, kw_only=True):
    """A new site: where commands come in, and the file that has its name for --site. `unit`: of the service
    manager, which runs it already; null: `site run` does."""

    name: str
    control: str
    sites_file: str
    unit: str | None


_UNDIALLED = (
    '{} is every address of this machine, which no peer can dial: advertise = "tcp://HOST:PORT" in site.toml'
)
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The site's data directory.")]


@app.command()
def init(
    ctx: typer.Context,
    directory: Directory,
    name: Annotated[
        str, typer.Option(help="The site's name, as its peers see it; by default the directory's.")
    ] = "",
    control: Annotated[
        str | None,
        typer.Option(metavar="ENDPOINT", help="Where commands come in; default ipc://DIR/control.sock."),
    ] = None,
    replication: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT", help="Where peers connect; none: this site dials."),
    ] = None,
    advertise: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="What peers dial, if not --replication.")
    ] = None,
    nbd: Annotated[
        list[str] | None,
        typer.Option(
            metavar="unix:PATH|tcp:HOST:PORT", help="Where hosts connect; default DIR/nbd.sock. Repeatable."
        ),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow NBD over TCP without TLS.")] = False,
    pair: Annotated[
        str, typer.Option(metavar="TOKEN", help="A peer's, as its `site init` or `site token` printed it.")
    ] = "",
    service: Annotated[
        bool,
        typer.Option("--service", help="DIR is a name: /var/lib/farshore/DIR, run by its unit from now on."),
    ] = False,
) -> None:
    """Make a site in a new or empty directory, and remember its name for --site.

    Where peers connect, `10.0.0.1` means tcp://10.0.0.1:7401. With --pair it knows a peer from the start.
    With --service the machine's service manager runs it, and whoever is in the group farshore commands it."""
    session = session_of(ctx)
    if service:
        require_service()
        directory = directory_of(directory)
        own_control, own_nbd = own_doors(directory.name)
        control, nbd = control or own_control, nbd or [own_nbd]
        if name not in ("", directory.name):
            raise UsageError(f"its unit calls it {directory.name}, not {name}", next_step="leave --name out")
    path = os.path.abspath(directory)
    name = check_name(name or os.path.basename(path), "site")
    endpoint = check_endpoint(control) if control else control_endpoint(path)
    toml_string(path)  # refused before the site is made, not when its name is to be remembered
    replication, advertise = (each and dialled(each) for each in (replication, advertise))
    given = [("--control", control), ("--replication", replication), ("--advertise", advertise)]
    given += [("--pair", pair), ("--control-socket-mode", CONTROL_MODE if service else "")]
    given += [("--nbd", address) for address in nbd or ()]
    words = ["init", path, "--name", name, *(word for each in given if each[1] for word in map(str, each))]
    words += ["--insecure"] if insecure else []
    before = known_sites(needed=False).entries.get(name, SiteEntry()).directory
    with registering(name, path, control, for_all=service) as sites_file:
        made = run_daemon(words, SiteInitReply, account=ACCOUNT if service else None)
    if service:
        begin_service(name)
    session.output.site = name
    unit = unit_of(name) if service else None
    data = SiteMade(**asdict(made), name=name, control=endpoint, sites_file=str(sites_file), unit=unit)
    moved = before if before not in ("", path) else ""
    dialled_at = advertise or replication or ""
    wants_tls = not insecure and any(address.startswith("tcp:") for address in nbd or ())
    session.output.result(
        "site.init", data, lambda: _show_made(session, data, moved, dialled_at, wants_tls=wants_tls)
    )


def _show_made(session: Session, data: SiteMade, moved: str, dialled_at: str, *, wants_tls: bool) -> None:
    """`moved`: the directory that its name meant until now."""
    session.output.line(f"site {data.name} made in {data.directory}")
    if data.unit:
        session.output.line(f"it runs as {data.unit}")
    if dialled_at and is_every_address(dialled_at):
        session.output.note(_UNDIALLED.format(dialled_at))
    if moved:
        # Commands that name it, in scripts too, go to another site from now on.
        back = shlex.join(["farshore", "site", "set", data.name, "--directory", moved])
        session.output.note(f"{data.name} meant {moved} until now: `{back}` undoes that")
    session.output.line(f"token {data.token}")
    if data.peer:
        session.output.line(f"peer {data.peer}, key {data.peer_fingerprint}: compare it there")
    if not data.unit:
        session.output.note(f"next: farshore site run {shlex.quote(data.directory)}")
    if data.peer:
        session.output.note(f"then `farshore peer add {data.token}` at {data.peer}")
        session.output.note(f"or, in a lost one's place: `farshore peer replace {data.name} TOKEN`")
    session.output.note(f"its key is {data.fingerprint}")
    if wants_tls:
        session.output.note("then, for hosts on TCP: `farshore site cert init`")


@app.command()
def run(directory: Directory) -> None:
    """Run the site's daemon in the foreground. SIGTERM stops it cleanly, SIGHUP reads site.toml again; logs
    are JSON on standard output."""
    sys.stdout.flush()
    # A reload that is asked for while the daemon loads must not end it; it reads site.toml later than that.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    words = daemon_words(["run", os.path.abspath(directory)])
    os.execv(words[0], words)


@app.command()
def adopt(ctx: typer.Context, directory: Directory) -> None:
    """Accept a data directory that was moved or copied from another machine; its original must not run."""
    session = session_of(ctx)
    path = os.path.abspath(directory)
    data = run_daemon(["adopt", path], SiteAdoptReply)
    session.output.result(
        "site.adopt", data, lambda: session.output.line(f"{path} now belongs to this machine")
    )


@app.command()
def accept(
    ctx: typer.Context,
    group: Annotated[str, typer.Argument(metavar="G", help="The group that is less here than it was.")],
    confirm: Annotated[str, typer.Option(metavar="G", help="The group's name once more.")] = "",
) -> None:
    """Go on with a group as an old copy of the site has it; what was durable here since then is given up."""
    session = session_of(ctx)

    def show() -> None:
        session.output.line(f"{group}: what this site held since the copy was made is given up")

    given = confirmed(session, confirm, group, "go on with what is here", show=show)
    data = session.call(SiteAccept(group=group, confirm=given))

    def show_done() -> None:
        what = "goes on with what is here" if data.head else "is forgotten"
        session.output.line(f"{group} {what}; given up: {data.lost.text}")

    session.output.result("site.accept", data, show_done)


@app.command()
def token(ctx: typer.Context) -> None:
    """Print what the other site's `farshore peer add` takes: name, endpoint and public key."""
    session = session_of(ctx)
    data = session.call(SiteToken())

    def show() -> None:
        session.output.line(data.token)
        session.output.note(f"site {data.site}, key {data.fingerprint}: compare it at the other site")
        if data.replication and is_every_address(data.replication):
            session.output.note(_UNDIALLED.format(data.replication))

    session.output.result("site.token", data, show)


@app.command("rotate-key")
def rotate_key(
    ctx: typer.Context,
    finish: Annotated[
        bool, typer.Option("--finish", help="Every peer has the new token: use the new key from now on.")
    ] = False,
) -> None:
    """Print the token of this site's next key, for peer rotate-key at every peer; --finish then uses it."""
    session = session_of(ctx)
    data = session.call(SiteRotateKey(finish=finish))

    def show() -> None:
        session.output.line(data.token)
        done = (
            "in use"
            if data.in_use
            else "next: `farshore peer rotate-key PEER TOKEN` at every peer, then --finish here"
        )
        session.output.note(f"key {data.fingerprint}: {done}")

    session.output.result("site.rotate-key", data, show)


def demo(
    ctx: typer.Context,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Where the two sites live; default a new one.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave both sites running at the end.")] = False,
) -> None:
    """Two sites on this machine: write, back up, damage, restore, kill; each step with its time and proof."""
    session = session_of(ctx)
    # Only here: the other commands start without it.
    module = importlib.import_module("console.demo")
    raise typer.Exit(module.main(session.output, directory=directory, keep=keep))


def daemon_words(words: list[str]) -> list[str]:
    """How to run the daemon's own command line."""
    return child_words("daemon", *words)


def run_daemon(words: list[str], kind: type[ReplyType], *, account: str | None = None) -> ReplyType:
    """Run a short daemon command, as the user `account` (and its group) if one is named; gives its data, of
    that type. Raises the operator error that it answered with."""
    done = subprocess.run(
        daemon_words([*words, "--json"]),
        user=account,
        group=account,
        extra_groups=None if account is None else [],
        cwd=None if account is None else "/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
        if done.returncode == 0:
            return msgspec.convert(answer["data"], kind)
        error = error_from_dict(answer["errors"][0])
    except (ValueError, LookupError, TypeError):
        error = FarshoreError(done.stderr.strip() or f"the daemon ended with {done.returncode}")
    raise error
