"""Which site a command is for: `--site NAME|DIR|ENDPOINT`, FARSHORE_SITE, `site use`, or the only one that is
known (`console.sites_file`).
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

from console.client import Client, OperatorKeys
from console.sites_file import SYSTEM_PATH, SiteEntry, changing_sites, known_sites, sites_path
from farshore.plain_files import read_plain
from protocol.commands.base import check_name
from protocol.endpoints import check_endpoint, control_endpoint
from protocol.errors import FarshoreError, NotAllowed, NotFound, UsageError

SITE_VARIABLE = "FARSHORE_SITE"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteChoice:
    """A site to talk to. `name` is how the user knows it, `directory` empty when it is not known here; `word`
    is what names it behind `--site`, empty if there is no other that could be meant."""

    name: str
    endpoint: str
    word: str
    directory: str = ""
    keys: OperatorKeys | None = field(default=None, repr=False)

    def client(self) -> Client:
        """A new client of this site."""
        return Client(self.endpoint, directory=self.directory, keys=self.keys)


def choose_site(selector: str | None) -> SiteChoice:
    """The site for `--site`, else for FARSHORE_SITE, else by `site use`, else the only known one. Raises
    NotFound, UsageError."""
    chosen = selector or os.environ.get(SITE_VARIABLE) or ""
    by_place = "/" in chosen or chosen in {".", "..", "~"}
    known_here = known_sites(needed=not by_place)
    entries = known_here.entries
    if not chosen:
        if len(entries) == 1:
            return replace(_from_entry(*next(iter(entries.items()))), word="")
        if known_here.default in entries:
            return _from_entry(known_here.default, entries[known_here.default])
        known = f"known: {', '.join(sorted(entries))}" if entries else "none is known here"
        raise UsageError(
            f"which site? ({known})", next_step=f"add --site NAME|DIR|ENDPOINT, or set {SITE_VARIABLE}"
        )
    if "://" in chosen:
        return _from_endpoint(chosen, entries)
    if by_place:
        return _from_directory(chosen, entries)
    if chosen in entries:
        return _from_entry(chosen, entries[chosen])
    if os.path.isdir(chosen):
        return _from_directory(chosen, entries)
    near = difflib.get_close_matches(chosen, entries, n=1)
    hint = f"did you mean {near[0]}?" if near else "name its directory: --site DIR"
    raise NotFound(f"no site {chosen!r} in {sites_path()}", subject=chosen, next_step=hint)


@contextmanager
def registering(name: str, directory: str, control: str | None, *, for_all: bool = False) -> Iterator[Path]:
    """Remember a name once the body has made its site, for this user or `for_all`; one that was known before
    now means this site. Gives the file's path. Raises FarshoreError before the body where the file cannot be
    read or written, so that no site is made that nobody would know."""
    check_name(name, "site")
    path = SYSTEM_PATH if for_all else sites_path()
    made = False
    try:
        with changing_sites(path) as file:
            yield path
            made = True
            file.sites[name] = SiteEntry(directory=directory, control=control or "")
    except OSError as error:
        if not made:
            raise
        raise FarshoreError(
            f"{path}: {error.strerror}; the site is made, but its name is not known here",
            subject=str(path),
            next_step=f"use it by its directory: --site {quote(directory)}",
        ) from error


def require_outside_sites(path: Path, *directories: str) -> None:
    """UsageError for a file within one of these data directories, or one that is known by a name here: a
    site's files have its daemon as their only writer."""
    # The directory's links count, not those of the file: whoever writes it gives it a new name.
    place = os.path.join(os.path.realpath(path.parent), path.name)
    for directory in [
        *directories,
        *(entry.directory for entry in known_sites(needed=False).entries.values()),
    ]:
        if directory and Path(place).is_relative_to(os.path.realpath(directory)):
            raise UsageError(
                f"{path} is within the data directory {directory}",
                subject=str(path),
                next_step="name a file elsewhere",
            )


def _from_entry(name: str, entry: SiteEntry) -> SiteChoice:
    if "\0" in entry.directory + entry.operator_key_file:
        raise UsageError(
            f"site {name!r} has a path with a NUL in it in {sites_path()}",
            subject=name,
            next_step="mend the file",
        )
    if not entry.control and not entry.directory:
        raise UsageError(
            f"site {name!r} has neither directory nor control in {sites_path()}",
            subject=name,
            next_step="mend the file",
        )
    return SiteChoice(
        name=name, word=name, endpoint=control_of(entry), directory=entry.directory, keys=_keys(name, entry)
    )


def control_of(entry: SiteEntry) -> str:
    """Where commands of a site come in. Raises UsageError."""
    return check_endpoint(entry.control) if entry.control else control_endpoint(entry.directory)


def _from_endpoint(endpoint: str, entries: dict[str, SiteEntry]) -> SiteChoice:
    for name, entry in entries.items():
        if entry.control == endpoint:
            return _from_entry(name, entry)
    return SiteChoice(name=endpoint, word=endpoint, endpoint=check_endpoint(endpoint))


def _from_directory(text: str, entries: dict[str, SiteEntry]) -> SiteChoice:
    directory = os.path.abspath(os.path.expanduser(text))
    for name, entry in entries.items():
        if entry.directory == directory:
            return _from_entry(name, entry)
    name = os.path.basename(directory)
    return SiteChoice(name=name, word=directory, endpoint=control_endpoint(directory), directory=directory)


def _keys(name: str, entry: SiteEntry) -> OperatorKeys | None:
    """The operator's keys for a TCP entry. Raises NotAllowed when others may read the secret one."""
    if not entry.operator_key_file or not entry.server_key:
        return None
    path = Path(entry.operator_key_file).expanduser()
    try:
        mode = path.stat().st_mode
        words = read_plain(path).decode("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise FarshoreError(f"{path}: {error}", subject=name) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise NotAllowed(
            f"{path} is open to other users", subject=name, next_step=f"chmod 600 {quote(str(path))}"
        )
    if len(words) != 2 or any(len(word) != 40 for word in [*words, entry.server_key]):
        raise UsageError(f"{path} and server_key must hold Z85 keys of 40 characters", subject=name)
    public_key, secret_key = (word.encode("ascii") for word in words)
    return OperatorKeys(
        public_key=public_key, secret_key=secret_key, server_key=entry.server_key.encode("ascii")
    )
