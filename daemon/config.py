"""site.toml: what an operator sets. Read once at start; unknown keys are refused with the nearest known one.

Every knob says what it costs. Sizes are in bytes and spans in seconds, or texts: "50G", "2d".
"""

from __future__ import annotations

import difflib
import pathlib
import tomllib
from collections.abc import Iterable, Mapping
from shlex import quote
from typing import Literal

import msgspec

from daemon.alerts.limits import AlertLimits, check_limits
from daemon.config_values import socket_access, with_numbers
from daemon.hook_config import HookConfig, check_hook
from daemon.notify.config import NotifyConfig, check_notify
from engine.ports.unix_sockets import SocketAccess
from engine.ports.zap import check_key
from farshore.plain_files import read_plain
from protocol.commands.base import check_name
from protocol.endpoints import check_endpoint, check_listen_endpoint, check_nbd_address, check_peer_endpoint
from protocol.errors import UsageError
from protocol.limits import (
    LOCK_S_MAX,
    NBD_CONNECTIONS_MAX,
    NBD_CONNECTIONS_PER_HOST,
    PEER_GROUPS_MAX,
    SCHEDULE_SPAN_S_MAX,
    SEGMENT_BYTES_MIN,
    SYNC_TIMEOUT_S,
)
from protocol.positions import POSITION_MAX
from protocol.roles import RoleName
from protocol.toml_text import toml_lines

CONFIG_FILE = "site.toml"
CONTROL_SOCKET_MODE = "0600"
MIB = 1 << 20
SYNC_TIMEOUT_MIN_S = 0.1
SYNC_TIMEOUT_MAX_S = 3600.0
START_WAIT_MAX_S = 3600.0
DOORS_MAX = 64
HOOKS_MAX = 256
OPERATORS_MAX = 64
NUMBER_BITS = 64
# Most that a key may be; the least is 0.
_MOST: dict[str, float] = {
    "groups_per_peer": PEER_GROUPS_MAX,
    "journal_cache_bytes": POSITION_MAX,
    "journal_limit_bytes": POSITION_MAX,
    "window_s": SCHEDULE_SPAN_S_MAX,
    "window_bytes": POSITION_MAX,
    "lock_window_s": LOCK_S_MAX,
    "reserve_bytes": POSITION_MAX,
    "start_wait_s": START_WAIT_MAX_S,
}


class OperatorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of [operators.NAME]."""

    key: str
    """The operator's public key (Z85), as `farshore operator key` prints it."""

    role: RoleName = "viewer"
    """What the operator may do: viewer, operator or admin."""


class SiteConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of site.toml."""

    name: str
    """This site's name, as peers and operators see it."""

    control: str = ""
    """Where the console asks: empty means the socket `control.sock` in the data directory."""

    remote_control: str = ""
    """tcp://HOST:PORT on which operators with keys command this site; empty: only on this machine."""

    replication: str = ""
    """tcp://HOST:PORT on which peers connect; empty: this site only dials."""

    advertise: str = ""
    """The endpoint put into this site's token, where it differs from `replication` (NAT, names)."""

    nbd: tuple[str, ...] = ()
    """Hosts' doors: unix:PATH or tcp:HOST:PORT; empty means the socket `nbd.sock` in the data directory."""

    insecure: bool = False
    """Allow NBD on TCP without TLS, or on a unix socket for every user of the machine: whoever reaches it
    reads and writes every volume."""

    nbd_tls: Literal["auto", "require", "allow", "off"] = "auto"
    """TLS on TCP. `auto`: required once the site has certificates (`site cert init`); before that TCP is in
    the clear with `insecure`, and closed without. `require`: no TCP in the clear in any case. `allow`, `off`:
    with `insecure` only. TLS costs the daemon's loop the time to encrypt each byte."""

    nbd_socket_owner: str = ""
    nbd_socket_group: str = ""
    nbd_socket_mode: str = "0660"
    """Owner and group, by name or number, and mode of hosts' unix sockets; empty: those of the daemon.
    Whoever may connect reads and writes every volume."""

    control_socket_owner: str = ""
    control_socket_group: str = ""
    control_socket_mode: str = CONTROL_SOCKET_MODE
    """The same of the socket where the console asks. Whoever may connect commands the site."""

    nbd_connections_per_host: int = NBD_CONNECTIONS_PER_HOST
    """Most connections of one host at a time: of one user on a unix socket, of one address on TCP. More of
    them take memory, and leave fewer of the site's 1,536 to others."""

    groups_per_peer: int = PEER_GROUPS_MAX
    """Most groups that one peer makes at this site by pairing its own; 0: none."""

    journal_cache_bytes: int = 0
    """How much of what journals wrote lately stays in the page cache; 0: a sixteenth of memory."""

    journal_limit_bytes: int = 0
    """Most that a group's journal may take; 0: as much as the file system has. At the limit hosts wait for
    older history to be truncated; if a peer or a backup in progress needs all of it, they get ENOSPC."""

    window_s: float = 86_400.0
    """Any moment of this many last seconds can be restored, not only backups. Longer costs disk: everything
    written in that time, overwritten or not."""

    window_bytes: int = 0
    """Most that the journal takes for that, beside what peers still need; 0: half of `journal_limit_bytes`,
    or of the room that there is. Smaller than the writes of `window_s` makes the window shorter."""

    lock_window_s: float = 0.0
    """Every moment of so many last seconds stays readable at this site, and backups that are deleted keep
    theirs for as long, whatever a peer, an operator's command or the clock says; 0: no such lock. Costs disk
    like `window_s`, without a way to get it back sooner: once `journal_limit_bytes` are full of it, hosts get
    ENOSPC here, and a peer that ships here is refused."""

    throttle: bool = False
    """Slow hosts down when three quarters of the journal are used: they write at the pace of the slowest peer
    instead of losing it."""

    reserve_bytes: int = 256 * MIB
    """Left free on the file system for checkpoints and recovery; less on small file systems (a sixteenth)."""

    start_wait_s: float = 3.0
    """How long a start waits for peers before hosts are served: a peer may hold the end of a journal that a
    power loss took here. Longer: fewer branches after such a loss; each start with the peer away takes as
    long."""

    sync_timeout_s: float = SYNC_TIMEOUT_S
    """How long a host's write waits for a silent peer in the modes sync and sync-strict. Hosts stand still
    for that long; a short one falls back (or refuses writes) at every hiccup of the link."""

    yields_to_takeover: bool = True
    """Whether a peer that was silent, and then says that it took over, is believed: hosts here are cut off.
    If not, both sites may be written until an operator here chooses (`pair resync G --source remote`)."""

    witness: str = ""
    """Directory, outside the data directory, of the small file by which a site notices that an old copy of it
    was put back; empty: the service manager's state directory, /var/lib/farshore/witness for root, or
    ~/.local/state/farshore/witness. `none`: without it only the peer can notice."""

    hooks: dict[str, HookConfig] = {}
    """How hosts are held still for a backup, by name: [hooks.NAME]."""

    alerts: AlertLimits = AlertLimits()
    """From when on a figure is an event that a person must know."""

    metrics: str = ""
    """HOST:PORT at which Prometheus scrapes this site; empty: nowhere. Whoever reaches it reads the names and
    figures of all groups."""

    notify: dict[str, NotifyConfig] = {}
    """Who is told of events, by name: [notify.NAME]."""

    operators: dict[str, OperatorConfig] = {}
    """Who may command this site over the network, by name: [operators.NAME]."""


def load_config(directory: pathlib.Path) -> SiteConfig:
    """Read site.toml. UsageError names the key that is wrong."""
    path = directory / CONFIG_FILE
    try:
        fields = tomllib.loads(read_plain(path).decode())
    except FileNotFoundError as error:
        raise UsageError(
            f"{directory} is not a site's data directory: there is no {CONFIG_FILE}",
            subject=str(directory),
            next_step=f"`farshore site init {quote(str(directory))} --name NAME`",
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, 5,000 digits, 5,000 brackets
        raise UsageError(f"{path}: {error}", subject=str(path), next_step="mend the file") from error
    _check_keys(path, fields, SiteConfig.__struct_fields__)
    fields = with_numbers(fields)
    if isinstance(fields.get("alerts"), dict):
        _check_keys(path, fields["alerts"], AlertLimits.__struct_fields__, "alerts.")
    tables: dict[str, type[msgspec.Struct]] = {
        "hooks": HookConfig,
        "notify": NotifyConfig,
        "operators": OperatorConfig,
    }
    for table, kind in tables.items():
        rows = fields.get(table)
        for name, row in rows.items() if isinstance(rows, dict) else ():
            if isinstance(row, dict):
                _check_keys(path, row, kind.__struct_fields__, f"{table}.{name}.")
    try:
        config = msgspec.convert(fields, SiteConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}", subject=str(path), next_step="mend the key named") from error
    check_config(config, str(path))
    return config


def nbd_access(config: SiteConfig) -> SocketAccess:
    """Who may connect to hosts' unix sockets."""
    owner, group = config.nbd_socket_owner, config.nbd_socket_group
    return socket_access("nbd", config.nbd_socket_mode, owner, group, others=config.insecure)


def control_access(config: SiteConfig) -> SocketAccess:
    """Who may connect to the control socket."""
    owner, group = config.control_socket_owner, config.control_socket_group
    return socket_access("control", config.control_socket_mode, owner, group, others=False)


def _check_keys(
    path: pathlib.Path, fields: Mapping[str, object], known: Iterable[str], prefix: str = ""
) -> None:
    for key, value in fields.items():
        if isinstance(value, int) and value.bit_length() >= NUMBER_BITS:  # TOML's bound, which tomllib omits
            raise UsageError(
                f"{path}: {prefix + key} is no number of {NUMBER_BITS} bits",
                subject=prefix + key,
                next_step="mend the key named",
            )
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise UsageError(f"{path}: unknown key {prefix + key!r}", subject=prefix + key, next_step=hint)


def check_config(config: SiteConfig, subject: str) -> None:
    """Rules over several keys. UsageError."""
    check_name(config.name, "site")
    if len(config.nbd) > DOORS_MAX or len(config.hooks) > HOOKS_MAX:
        raise UsageError(f"at most {DOORS_MAX} doors and {HOOKS_MAX} hooks", subject=subject)
    for address in config.nbd:
        check_nbd_address(address)
        if address.startswith("tcp:") and config.nbd_tls in ("allow", "off") and not config.insecure:
            raise UsageError(
                f"NBD on {address} would be readable and writable by whoever reaches the port",
                subject=subject,
                next_step="leave nbd_tls out, or say so with --insecure (insecure = true in site.toml)",
            )
    _check_apart(config, subject)
    nbd_access(config)
    control_access(config)
    if not 1 <= config.nbd_connections_per_host <= NBD_CONNECTIONS_MAX:
        raise UsageError(
            f"nbd_connections_per_host is {config.nbd_connections_per_host}: it must be from 1 to "
            f"{NBD_CONNECTIONS_MAX}",
            subject=subject,
        )
    for key, most in _MOST.items():
        value = getattr(config, key)
        # Written so that what is not a number (nan) is refused too.
        if not 0 <= value <= most:
            raise UsageError(f"{key} is {value}: it must be from 0 to {most:g}", subject=subject)
    if 0 < config.journal_limit_bytes < SEGMENT_BYTES_MIN:
        # Such as 50 for 50 GiB: hosts would get ENOSPC at once, and peers be detached.
        raise UsageError(
            f"journal_limit_bytes is {config.journal_limit_bytes}: nothing could be written",
            subject=subject,
            next_step='write a size such as "50G", or 0 for no limit',
        )
    if config.witness not in ("", "none") and not config.witness.startswith("/"):
        raise UsageError(
            f"witness is {config.witness!r}: it must be an absolute path, or none", subject=subject
        )
    if "\0" in config.witness:
        raise UsageError("witness has a NUL in it, which no path can have", subject=subject)
    if config.control and not check_endpoint(config.control).startswith("ipc://"):
        raise UsageError(
            f"control endpoint {config.control!r} must be ipc://PATH",
            subject=subject,
            next_step="leave it out: the socket is then in the data directory",
        )
    if not SYNC_TIMEOUT_MIN_S <= config.sync_timeout_s <= SYNC_TIMEOUT_MAX_S:
        raise UsageError(
            f"sync_timeout_s is {config.sync_timeout_s:g}: it must be from {SYNC_TIMEOUT_MIN_S:g} to "
            f"{SYNC_TIMEOUT_MAX_S:g} seconds",
            subject=subject,
        )
    for name, hook in config.hooks.items():
        check_hook(name, hook)
    check_limits(config.alerts)
    check_notify(config.notify)
    if config.metrics:
        check_nbd_address(f"tcp:{config.metrics}")
    _check_operators(config, subject)
    if config.remote_control:
        check_listen_endpoint(config.remote_control)
    if config.replication:
        check_listen_endpoint(config.replication)
    if config.advertise:
        check_peer_endpoint(config.advertise)


def _check_operators(config: SiteConfig, subject: str) -> None:
    if len(config.operators) > OPERATORS_MAX:
        raise UsageError(f"at most {OPERATORS_MAX} operators", subject=subject)
    of_key: dict[str, str] = {}
    for name, operator in config.operators.items():
        check_name(name, "operator")
        check_key(operator.key, f"operators.{name}")
        if operator.key in of_key:
            raise UsageError(f"{of_key[operator.key]} and {name} have the same key", subject=name)
        of_key[operator.key] = name


def _check_apart(config: SiteConfig, subject: str) -> None:
    """That no two doors of the site are one: the second would find a server there. UsageError."""
    taken: dict[str, str] = {}
    doors = [("nbd", address.replace("tcp:", "tcp://", 1)) for address in config.nbd]
    doors += [("replication", config.replication), ("remote_control", config.remote_control)]
    doors += [("control", config.control.replace("ipc://", "unix:", 1))]
    for key, address in doors:
        if address and (before := taken.setdefault(address, key)) != key:
            raise UsageError(f"{before} and {key} both listen on {address}", subject=subject)
    if len(set(config.nbd)) != len(config.nbd):
        raise UsageError("nbd names one address twice", subject=subject)


def config_text(config: SiteConfig) -> str:
    """site.toml for a new site: what differs from the defaults."""
    keys = ("name", "control", "replication", "advertise", "nbd", "insecure", "witness")
    fields = {key: value for key in keys if (value := getattr(config, key))}
    if config.control_socket_mode != CONTROL_SOCKET_MODE:
        fields["control_socket_mode"] = config.control_socket_mode
    lines = ["# Farshore site; docs/operations.md explains every key.", *toml_lines(fields)]
    return "\n".join(lines) + "\n"
