"""sites.toml: which sites are known by a name, and which is meant where none is named. Read and written here.

    default = "lon"                      # by `farshore site use`
    [sites."lon"]
    directory = "/srv/farshore/lon"      # on this machine; its control socket is DIR/control.sock
    control = "tcp://10.0.0.1:7000"      # or another endpoint
    server_key = "…"                     # with tcp: the site's public key, Z85
    operator_key_file = "/home/o/.config/farshore/operator.key"   # with tcp: public and secret key, Z85

A user's own is in the user's configuration directory (XDG base directory specification); one for all users is
/etc/farshore/sites.toml. A name that both have is the user's; where both mean one directory, what the user's
leaves open is as for all: `site init` writes there, and knows nothing of a control socket chosen later.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from console.unfinished_file import UnfinishedFile
from farshore.plain_files import read_plain
from protocol.errors import FarshoreError, NotFound, UsageError
from protocol.toml_text import toml_lines, toml_string

SYSTEM_PATH = Path("/etc/farshore/sites.toml")


class SiteEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of sites.toml."""

    directory: str = ""
    control: str = ""
    server_key: str = ""
    operator_key_file: str = ""


class SitesFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The whole of sites.toml."""

    sites: dict[str, SiteEntry] = {}
    default: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the files say together. `files`: where each name comes from."""

    entries: dict[str, SiteEntry]
    files: dict[str, Path]
    default: str


def sites_path() -> Path:
    """Where a user's names are kept: $XDG_CONFIG_HOME/farshore/sites.toml, by default under ~/.config. Raises
    NotFound for a user without a home."""
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


def known_sites(*, needed: bool = True) -> Known:
    """What both files say; of a bad one nothing, for who needs none of it."""
    entries: dict[str, SiteEntry] = {}
    files: dict[str, Path] = {}
    default = ""
    paths = [SYSTEM_PATH]
    with suppress(NotFound):  # a user without a home has none
        paths.append(sites_path())
    for path in paths:
        try:
            file = read_sites(path)
        except FarshoreError:
            if needed:
                raise
            continue
        entries |= {name: _over(entry, entries.get(name)) for name, entry in file.sites.items()}
        files |= dict.fromkeys(file.sites, path)
        default = file.default or default
    return Known(entries=entries, files=files, default=default)


def _over(entry: SiteEntry, of_all: SiteEntry | None) -> SiteEntry:
    if of_all is None or not entry.directory or entry.directory != of_all.directory:
        return entry
    fields = SiteEntry.__struct_fields__
    return SiteEntry(**{field: getattr(entry, field) or getattr(of_all, field) for field in fields})


def read_sites(path: Path) -> SitesFile:
    """One file; an empty one that is not there. FarshoreError, UsageError."""
    try:
        raw = read_plain(path)
    except FileNotFoundError:
        return SitesFile()
    except OSError as error:
        no_file = error.errno == errno.EINVAL
        kind = UsageError if no_file else FarshoreError
        raise kind(f"{path}: {error.strerror}", subject=str(path)) from error
    try:
        return msgspec.convert(tomllib.loads(raw.decode("utf-8")), SitesFile)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{path}: {error}", subject=str(path), next_step="mend the file") from error


@contextmanager
def changing_sites(path: Path) -> Iterator[SitesFile]:
    """The file, for the body to change; written once that ends well. Raises FarshoreError before the body
    where it cannot be read or written, OSError where its content then cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if path == SYSTEM_PATH else 0o700)
    with open(path.with_suffix(".lock"), "a") as lock:
        # Two commands at once would each write the file without the other's name.
        fcntl.flock(lock, fcntl.LOCK_EX)
        sites = read_sites(path)
        # Half a file would lose every name; a link to a file elsewhere stays one.
        with UnfinishedFile(path.resolve(), replace=True) as unfinished:
            yield sites
            unfinished.write(_toml(sites).encode())
            if path == SYSTEM_PATH:
                os.fchmod(unfinished.descriptor, 0o644)
            unfinished.make_durable()
            unfinished.finish()


def _toml(file: SitesFile) -> str:
    lines = ["# Sites that `farshore --site NAME` knows. Written by `farshore site init|use|set`."]
    lines += toml_lines({"default": file.default}) if file.default else []
    for name, entry in sorted(file.sites.items()):
        fields: dict[str, Any] = msgspec.to_builtins(entry)
        lines += ["", f"[sites.{toml_string(name)}]"]
        lines += toml_lines({key: value for key, value in fields.items() if value})
    return "\n".join(lines) + "\n"
