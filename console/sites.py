"""Which site a command is for: `--site NAME|DIR|ENDPOINT`, FARSHORE_SITE, or the only one that is known.

Names live in `sites.toml` in the user's configuration directory (XDG base directory specification):

    [sites."lon"]
    directory = "/srv/farshore/lon"      # on this machine; its control socket is DIR/control.sock
    control = "tcp://10.0.0.1:7000"      # or another endpoint
    server_key = "…"                     # with tcp: the site's public key, Z85
    operator_key_file = "/home/o/.config/farshore/operator.key"   # with tcp: public and secret key, Z85
"""

from __future__ import annotations

import difflib
import fcntl
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from console.client import Client, OperatorKeys
from console.unfinished_file import UnfinishedFile
from protocol.commands.base import check_name
from protocol.endpoints import check_endpoint, control_endpoint
from protocol.errors import FarshoreError, NotAllowed, NotFound, UsageError
from protocol.toml_text import toml_lines, toml_string

SITE_VARIABLE = "FARSHORE_SITE"


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of sites.toml."""

    directory: str = ""
    control: str = ""
    server_key: str = ""
    operator_key_file: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of sites.toml."""

    sites: dict[str, _Entry] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteChoice:
    """A site to talk to. `name` is how the user knows it, `directory` empty when it is not known here."""

    name: str
    endpoint: str
    directory: str = ""
    keys: OperatorKeys | None = field(default=None, repr=False)

    def client(self) -> Client:
        """A new client of this site."""
        return Client(self.endpoint, directory=self.directory, keys=self.keys)


def sites_path() -> Path:
    """Where names are kept: $XDG_CONFIG_HOME/farshore/sites.toml, by default under ~/.config. Raises NotFound
    for a user without a home."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification: a relative path there is invalid and to be ignored.
    if os.path.isabs(base):
        return Path(base) / "farshore" / "sites.toml"
    try:
        return Path.home() / ".config" / "farshore" / "sites.toml"
    except RuntimeError as error:
        raise NotFound(
            "this user has no home directory, where the names of sites are kept",
            next_step="set HOME or XDG_CONFIG_HOME, or name the site by its directory: --site DIR",
        ) from error


def choose_site(selector: str | None) -> SiteChoice:
    """The site for `--site`, else for FARSHORE_SITE, else the only known one. Raises NotFound, UsageError."""
    chosen = selector or os.environ.get(SITE_VARIABLE) or ""
    by_place = "/" in chosen or chosen in {".", "..", "~"}
    entries = _known(needed=not by_place)
    if not chosen:
        if len(entries) == 1:
            return _from_entry(*next(iter(entries.items())))
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
def registering(name: str, directory: str, control: str | None) -> Iterator[Path]:
    """Remember a name once the body has made its site; one that was known before now means this site. Gives
    the file's path. Raises FarshoreError before the body where the file cannot be read or written, so that no
    site is made that nobody would know."""
    check_name(name, "site")
    path = sites_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(path.with_suffix(".lock"), "a") as lock:
        # Two `site init` at once would each write the file without the other's name.
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = _read(path)
        # Half a file would lose every name; a link to a file elsewhere stays one.
        with UnfinishedFile(path.resolve(), replace=True) as unfinished:
            yield path
            entries[name] = _Entry(directory=directory, control=control or "")
            _fill(unfinished, _toml(entries).encode(), directory)


def require_outside_sites(path: Path, *directories: str) -> None:
    """UsageError for a file within one of these data directories, or one that is known by a name here: a
    site's files have its daemon as their only writer."""
    # The directory's links count, not those of the file: whoever writes it gives it a new name.
    place = os.path.join(os.path.realpath(path.parent), path.name)
    for directory in [*directories, *(entry.directory for entry in _known(needed=False).values())]:
        if directory and Path(place).is_relative_to(os.path.realpath(directory)):
            raise UsageError(
                f"{path} is within the data directory {directory}",
                subject=str(path),
                next_step="name a file elsewhere",
            )


def _fill(unfinished: UnfinishedFile, content: bytes, directory: str) -> None:
    try:
        with open(unfinished.descriptor, "wb", closefd=False) as file:
            file.write(content)
        unfinished.make_durable()
        unfinished.finish()
    except OSError as error:
        raise FarshoreError(
            f"{unfinished.path}: {error.strerror}; the site is made, but its name is not known here",
            subject=str(unfinished.path),
            next_step=f"use it by its directory: --site {directory}",
        ) from error


def _known(*, needed: bool) -> dict[str, _Entry]:
    """What sites.toml says; nothing for a user who can have none, nor for who needs none, if it is bad."""
    try:
        path = sites_path()
    except NotFound:
        return {}
    try:
        return _read(path)
    except FarshoreError:
        if needed:
            raise
        return {}


def _read(path: Path) -> dict[str, _Entry]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise FarshoreError(f"{path}: {error.strerror}", subject=str(path)) from error
    try:
        return dict(msgspec.convert(tomllib.loads(raw.decode("utf-8")), _File).sites)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{path}: {error}", subject=str(path), next_step="mend the file") from error


def _toml(entries: dict[str, _Entry]) -> str:
    lines = ["# Sites that `farshore --site NAME` knows. Written by `farshore site init`."]
    for name, entry in sorted(entries.items()):
        fields: dict[str, Any] = msgspec.to_builtins(entry)
        lines += ["", f"[sites.{toml_string(name)}]"]
        lines += toml_lines({key: value for key, value in fields.items() if value})
    return "\n".join(lines) + "\n"


def _from_entry(name: str, entry: _Entry) -> SiteChoice:
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
    endpoint = check_endpoint(entry.control) if entry.control else control_endpoint(entry.directory)
    return SiteChoice(name=name, endpoint=endpoint, directory=entry.directory, keys=_keys(name, entry))


def _from_endpoint(endpoint: str, entries: dict[str, _Entry]) -> SiteChoice:
    for name, entry in entries.items():
        if entry.control == endpoint:
            return _from_entry(name, entry)
    return SiteChoice(name=endpoint, endpoint=check_endpoint(endpoint))


def _from_directory(text: str, entries: dict[str, _Entry]) -> SiteChoice:
    directory = os.path.abspath(os.path.expanduser(text))
    for name, entry in entries.items():
        if entry.directory == directory:
            return _from_entry(name, entry)
    return SiteChoice(
        name=os.path.basename(directory), endpoint=control_endpoint(directory), directory=directory
    )


def _keys(name: str, entry: _Entry) -> OperatorKeys | None:
    """The operator's keys for a TCP entry. Raises NotAllowed when others may read the secret one."""
    if not entry.operator_key_file or not entry.server_key:
        return None
    path = Path(entry.operator_key_file).expanduser()
    try:
        mode = path.stat().st_mode
        words = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise FarshoreError(f"{path}: {error}", subject=name) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise NotAllowed(f"{path} is open to other users", subject=name, next_step=f"chmod 600 {path}")
    if len(words) != 2 or any(len(word) != 40 for word in [*words, entry.server_key]):
        raise UsageError(f"{path} and server_key must hold Z85 keys of 40 characters", subject=name)
    public_key, secret_key = (word.encode("ascii") for word in words)
    return OperatorKeys(
        public_key=public_key, secret_key=secret_key, server_key=entry.server_key.encode("ascii")
    )
