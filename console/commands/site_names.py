"""`farshore site list|use|set|check`: the sites that are known by a name here; whether one could start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from console.commands.site import run_daemon
from console.session import session_of
from console.sites import control_of
from console.sites_file import SYSTEM_PATH, Known, SiteEntry, changing_sites, known_sites, sites_path
from protocol.commands.base import check_name
from protocol.commands.site import CheckState, SiteCheckReply, SiteListReply, SiteRow
from protocol.endpoints import check_endpoint
from protocol.errors import NotFound, UsageError
from protocol.toml_text import toml_string

Name = Annotated[str, typer.Argument(metavar="NAME", help="The site's name here.")]
System = Annotated[bool, typer.Option("--system", help=f"For all users of this machine: {SYSTEM_PATH}.")]


def _rows(known: Known) -> tuple[SiteRow, ...]:
    default = known.default if known.default in known.entries or len(known.entries) > 1 else None
    return tuple(
        SiteRow(
            name=name,
            directory=entry.directory or None,
            control=control_of(entry),
            file=str(known.files[name]),
            is_default=default is None or name == default,
        )
        for name, entry in sorted(known.entries.items())
    )


def _row(name: str) -> SiteRow:
    return next(row for row in _rows(known_sites()) if row.name == name)


def list_sites(ctx: typer.Context) -> None:
    """Sites that are known by a name here; `*` is the one that is meant where none is named."""
    session = session_of(ctx)
    data = SiteListReply(sites=_rows(known_sites()))

    def show() -> None:
        for row in data.sites:
            mark = "*" if row.is_default else " "
            session.output.line(f"{mark} {row.name}  {row.directory or row.control}  ({row.file})")

    session.output.result("site.list", data, show)


def use_site(ctx: typer.Context, name: Name, system: System = False) -> None:
    """Mean this site wherever neither --site nor FARSHORE_SITE names one."""
    session = session_of(ctx)
    if name not in known_sites().entries:
        raise NotFound(f"no site {name!r} is known here", subject=name, next_step="farshore site list")
    with changing_sites(SYSTEM_PATH if system else sites_path()) as file:
        file.default = name
    data = _row(name)
    session.output.result("site.use", data, lambda: session.output.line(f"{name} is meant from now on"))


def set_site(
    ctx: typer.Context,
    name: Name,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Its data directory on this machine.")
    ] = None,
    control: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="Where commands come in; default DIR/control.sock.")
    ] = None,
    system: System = False,
) -> None:
    """Know a site by a name, or change where it is; what is not given stays."""
    session = session_of(ctx)
    check_name(name, "site")
    with changing_sites(SYSTEM_PATH if system else sites_path()) as file:
        entry = file.sites.get(name, SiteEntry())
        if directory is not None:
            entry = msgspec.structs.replace(entry, directory=os.path.abspath(directory))
        if control is not None:
            entry = msgspec.structs.replace(entry, control=check_endpoint(control) if control else "")
        if not entry.directory and not entry.control:
            raise UsageError(
                f"where is site {name}?", subject=name, next_step="add --directory DIR or --control ENDPOINT"
            )
        toml_string(entry.directory)
        control_of(entry)
        file.sites[name] = entry
    data = _row(name)
    session.output.result(
        "site.set", data, lambda: session.output.line(f"{name} is {data.directory or data.control}")
    )


def check_site(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The site's data directory.")],
) -> None:
    """Look whether a site could start as it is: settings, identity, permissions, room, addresses.

    Changes nothing. Ends with the exit code of the first part that would keep it from starting."""
    session = session_of(ctx)
    data = run_daemon(["check", os.path.abspath(directory)], SiteCheckReply)
    session.output.site = data.site_name or ""

    def show() -> None:
        for each in data.findings:
            session.output.line(f"{each.state.value:7} {each.check}: {each.said}")
            if each.next:
                session.output.line(f"        next: {each.next}")

    session.output.result("site.check", data, show)
    codes = [each.exit_code for each in data.findings if each.state is CheckState.FAILED]
    if codes:
        raise typer.Exit(codes[0])
