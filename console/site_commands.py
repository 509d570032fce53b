"""`farshore site` and `farshore demo`: make a site, run its daemon, introduce it to another.

What touches a data directory is the daemon's: `init` and `adopt` run it as a child, `run` becomes it.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from console.session import session_of
from console.sites import register_site
from protocol.commands import SiteToken, check_name
from protocol.endpoints import check_endpoint, control_endpoint
from protocol.errors import ERROR_CLASSES, ExitCode, FarshoreError

app = typer.Typer(help="One daemon and its data directory.", no_args_is_help=True, rich_markup_mode=None)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The site's data directory.")]
_FIELDS = ("object", "position", "next")


@app.command()
def init(
    ctx: typer.Context,
    directory: Directory,
    name: Annotated[str, typer.Option(help="The site's name, as its peers see it.")],
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
) -> None:
    """Make a site in a new or empty directory, and remember its name for --site."""
    session = session_of(ctx)
    check_name(name, "site")
    path = os.path.abspath(directory)
    endpoint = check_endpoint(control) if control else control_endpoint(path)
    words = ["init", path, "--name", name]
    for option, value in (("--control", control), ("--replication", replication), ("--advertise", advertise)):
        words += [option, value] if value else []
    for address in nbd or []:
        words += ["--nbd", address]
    _run_daemon([*words, *(["--insecure"] if insecure else [])])
    sites_file = register_site(name, path, control)
    session.output.site = name
    data = {"name": name, "directory": path, "control": endpoint, "sites_file": str(sites_file)}

    def show() -> None:
        session.output.line(f"site {name} made in {path}")
        session.output.note(f"next: farshore site run {path}")

    session.output.result("site.init", data, show)


@app.command()
def run(directory: Directory) -> None:
    """Run the site's daemon in the foreground; SIGTERM stops it cleanly. Logs are JSON on standard output."""
    sys.stdout.flush()
    words = _daemon_words(["run", os.path.abspath(directory)])
    os.execv(words[0], words)


@app.command()
def adopt(ctx: typer.Context, directory: Directory) -> None:
    """Accept a data directory that was moved or copied from another machine; its original must not run."""
    session = session_of(ctx)
    path = os.path.abspath(directory)
    _run_daemon(["adopt", path])
    session.output.result(
        "site.adopt", {"directory": path}, lambda: session.output.line(f"{path} now belongs to this machine")
    )


@app.command()
def token(ctx: typer.Context) -> None:
    """Print what the other site's `farshore peer add` takes: name, endpoint and public key."""
    session = session_of(ctx)
    data = session.call(SiteToken())

    def show() -> None:
        session.output.line(str(data["token"]))
        session.output.note(f"site {data['site']}, key {data['fingerprint']}: compare it at the other site")

    session.output.result("site.token", data, show)


def demo(
    ctx: typer.Context,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Where the two sites live; default a new one.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave both sites running at the end.")] = False,
) -> None:
    """Two sites on this machine: write, back up, damage, restore, kill; each step with its time and proof."""
    session_of(ctx)
    module = importlib.import_module("console.demo")
    raise typer.Exit(int(module.main(directory=directory, keep=keep) or 0))


def _daemon_words(words: list[str]) -> list[str]:
    """-P: a `daemon.py` in the current directory must not be run in the daemon's place."""
    return [sys.executable, "-P", "-m", "daemon", *words]


def _run_daemon(words: list[str]) -> None:
    """Run a short daemon command. Raises the operator error that it printed, with its exit code."""
    done = subprocess.run(
        _daemon_words(words), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        sys.stderr.write(done.stderr)
        return
    raise _error_from_text(done.stderr, done.returncode)


def _error_from_text(text: str, code: int) -> FarshoreError:
    """The error that `error:`, `object:`, `position:` and `next:` lines tell; others join the message."""
    message: list[str] = []
    found = dict.fromkeys(_FIELDS, "")
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        if name in found:
            found[name] = value.strip()
        elif line.strip():
            message.append(value if name == "error" else line)
    known = {int(cls.exit_code): cls for cls in reversed(ERROR_CLASSES) if cls.exit_code != ExitCode.FAILED}
    error_class = known.get(code, FarshoreError)
    return error_class(
        "\n".join(message) or f"the daemon ended with {code}",
        subject=found["object"],
        position=found["position"],
        next_step=found["next"],
    )
