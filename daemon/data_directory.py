"""A site's data directory: made once, opened by one daemon, and only on the machine that it belongs to.

    site.toml        config (0600)
    identity.json    format version, site id, machine id, inode of the directory
    keys/            CURVE key pair (0600); `next` is the secret one that is to take its place; `signing` see
                     `daemon/signing_key.py`
    peers.json       peers added: name, endpoint, public key, site id
    lock             held by the running daemon
    state.mdb        roles, heads, pairs, closed exports
    groups/NAME/     journal/ and index.mdb of a group

A copied directory would write under the same site id and keys as the original, so the machine and the inode
are compared at start; `site adopt` makes a copy this machine's own, once the original is known to be gone
(invariant 18).
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from shlex import quote

from daemon.config import CONFIG_FILE, SiteConfig, check_config, config_text
from engine.ports.disk import Disk
from engine.ports.durable import FileLock, NotAFile, RealDisk, lock_file
from engine.ports.zap import check_key, check_keypair, public_key_of
from engine.ports.zmq_transport import generate_keypair
from farshore.plain_files import read_plain
from protocol.commands.base import check_name
from protocol.errors import Busy, Corruption, FarshoreError, NotAllowed, NotFound, UsageError, WrongState

# 2: of this version. 1: what is there is read, and marked as of this version before anything is written.
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
IDENTITY_FILE = "identity.json"
STATE_FILE = "state.mdb"
PUBLIC_KEY_FILE = "keys/public"
SECRET_KEY_FILE = "keys/secret"
NEXT_KEY_FILE = "keys/next"
# Names the machine where its own id is another at each start, as in a container. It comes from the
# environment and not from site.toml, which a copy of the directory would bring along.
MACHINE_VARIABLE = "FARSHORE_MACHINE_ID"
MACHINE_CHOSEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
MACHINE_ID_PATHS = (pathlib.Path("/etc/machine-id"), pathlib.Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a data directory is. `machine` and `inode` say where it was made or adopted."""

    site_id: str
    machine: str
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """CURVE keys in Z85."""

    public: str
    secret: str


def machine_id() -> str:
    """This machine's id: as the environment says, or its own; the host name where there is none. UsageError
    for a value that is none."""
    chosen = os.environ.get(MACHINE_VARIABLE, "")
    if chosen:
        if MACHINE_CHOSEN.fullmatch(chosen) is None:
            raise UsageError(
                f"{MACHINE_VARIABLE} is not up to 128 letters, digits, dots, hyphens or underscores: "
                f"{chosen[:40]!r}",
                subject=MACHINE_VARIABLE,
                next_step="choose a word that is this site's alone and the same at each start",
            )
        return chosen
    for path in MACHINE_ID_PATHS:
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            return text
    return os.uname().nodename


def make_site(directory: pathlib.Path, config: SiteConfig) -> Identity:
    """Make a data directory. UsageError for a bad name, Busy if it holds anything already."""
    check_name(config.name, "site")
    check_config(config, config.name)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = any(directory.iterdir())
    except OSError as error:
        raise FarshoreError(f"cannot make {directory}: {error.strerror}", subject=str(directory)) from error
    if taken:
        raise Busy(f"{directory} is not empty", subject=str(directory), next_step="choose an empty directory")
    directory.chmod(0o700)
    disk = RealDisk(directory, None)
    for name in ("keys", "groups"):
        disk.make_directory(name)
    public, secret = generate_keypair()
    disk.replace_file(PUBLIC_KEY_FILE, public.encode())
    disk.replace_file(SECRET_KEY_FILE, secret.encode())
    disk.replace_file(CONFIG_FILE, config_text(config).encode())
    # Last: a directory without an identity is not a site yet.
    return _write_identity(disk, directory, secrets.token_hex(8))


def _write_identity(disk: RealDisk, directory: pathlib.Path, site_id: str) -> Identity:
    identity = Identity(site_id=site_id, machine=machine_id(), inode=directory.stat().st_ino)
    text = json.dumps(
        {
            "format": FORMAT_VERSION,
            "site_id": identity.site_id,
            "machine": identity.machine,
            "inode": identity.inode,
        },
        indent=1,
    )
    disk.replace_file(IDENTITY_FILE, text.encode())
    return identity


def read_identity(directory: pathlib.Path) -> Identity:
    """The identity as written. NotFound if this is no site, NotAllowed for another format version."""
    try:
        fields = json.loads(read_plain(directory / IDENTITY_FILE))
        version = fields["format"]
        identity = Identity(
            site_id=str(fields["site_id"]), machine=str(fields["machine"]), inode=int(fields["inode"])
        )
    except FileNotFoundError as error:
        raise NotFound(
            f"{directory} is not a site's data directory",
            subject=str(directory),
            next_step=f"`farshore site init {quote(str(directory))} --name NAME`",
        ) from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UsageError(
            f"{directory / IDENTITY_FILE} cannot be read: {error}",
            subject=str(directory),
            next_step="restore the file from a copy of the directory: with another site id peers refuse it",
        ) from error
    if version not in READABLE_VERSIONS:
        raise NotAllowed(
            f"{directory} has format version {version}, this program reads {FORMAT_VERSION} and before",
            subject=str(directory),
            next_step="install the version of Farshore that wrote it",
        )
    return identity


def check_identity(directory: pathlib.Path) -> Identity:
    """The identity, if the directory is where it was made. NotAllowed if it was copied or moved here."""
    identity = read_identity(directory)
    moved = [] if identity.inode == directory.stat().st_ino else ["its inode is another"]
    if identity.machine != machine_id():
        moved.append("the machine's id is another")
    if moved:
        raise NotAllowed(
            f"{directory} was copied here from another place or machine ({' and '.join(moved)}); "
            "two daemons of one identity lose data",
            subject=str(directory),
            next_step=f"if the original is gone for good: `farshore site adopt {quote(str(directory))}`; "
            f"where the machine's id changes at each start, as in a container, set {MACHINE_VARIABLE} first",
        )
    return identity


def mark_upgraded(directory: pathlib.Path, identity: Identity) -> None:
    """From now on an earlier version refuses the directory: it may take for damage what this one writes. The
    directory is locked. On a full disk it stays as it is until a later start."""
    version = json.loads(read_plain(directory / IDENTITY_FILE))["format"]
    if version != FORMAT_VERSION:
        with suppress(OSError):
            _write_identity(RealDisk(directory, None), directory, identity.site_id)


def adopt_site(directory: pathlib.Path) -> Identity:
    """Make a copied directory this machine's own."""
    identity = read_identity(directory)
    held = lock_site(directory)
    try:
        return _write_identity(RealDisk(directory, None), directory, identity.site_id)
    finally:
        held.close()


def lock_site(directory: pathlib.Path) -> FileLock:
    """Be the one daemon of a directory. Busy if another runs."""
    try:
        return lock_file(directory / "lock")
    except BlockingIOError as error:
        raise Busy(
            f"another daemon runs on {directory}",
            subject=str(directory),
            next_step=f"`farshore status --site {quote(str(directory))}` asks it",
        ) from error


def read_keys(directory: pathlib.Path) -> Keys:
    """The site's CURVE keys. Corruption if they are not there, or none; UsageError for two of different
    pairs; OSError."""
    disk = RealDisk(directory, None)
    secret = _read_key(disk, SECRET_KEY_FILE)
    coming = next_keys(disk)
    if coming is not None and coming.secret == secret:
        return use_next_keys(disk)  # a loss of power cut that short
    public = _read_key(disk, PUBLIC_KEY_FILE)
    check_keypair(public, secret)
    return Keys(public=public, secret=secret)


def next_keys(disk: Disk) -> Keys | None:
    """The keys that are to take the place of the site's; None if there are none, or what is there is no key.
    OSError."""
    if not disk.exists(NEXT_KEY_FILE):
        return None
    try:
        secret = disk.read_file(NEXT_KEY_FILE).decode("ascii")
        check_key(secret, NEXT_KEY_FILE)
    except (UnicodeDecodeError, UsageError):
        return None
    return Keys(public=public_key_of(secret), secret=secret)


def make_next_keys(disk: Disk) -> Keys:
    """The same, made if there are none. OSError."""
    coming = next_keys(disk)
    if coming is None:
        public, secret = generate_keypair()
        disk.replace_file(NEXT_KEY_FILE, secret.encode())
        coming = Keys(public=public, secret=secret)
    return coming


def use_next_keys(disk: Disk) -> Keys:
    """Let them take the place of the site's, durably. WrongState if there are none. OSError: a start goes on
    with whatever was done."""
    coming = next_keys(disk)
    if coming is None:
        raise WrongState(
            "this site has no key that could take the place of its own",
            next_step="`farshore site rotate-key` makes one, and its token for the peers",
        )
    # The secret first: it and the next one say by themselves what is to be done.
    disk.replace_file(SECRET_KEY_FILE, coming.secret.encode())
    disk.replace_file(PUBLIC_KEY_FILE, coming.public.encode())
    disk.remove(NEXT_KEY_FILE)
    return coming


def _read_key(disk: RealDisk, name: str) -> str:
    try:
        key = disk.read_file(name).decode("ascii")
        check_key(key, name)
    except (FileNotFoundError, IsADirectoryError, NotAFile, UnicodeDecodeError, UsageError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged: {error}"
        raise Corruption(
            f"{disk.root / name} {why}",
            subject=name,
            next_step="restore keys/ from a copy of the directory: peers know this site by them",
        ) from error
    return key
