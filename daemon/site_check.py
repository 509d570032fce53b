"""`site check`: whether a site could start as it is: its settings, identity, files, addresses and room.

Looks and changes nothing, so it may be run by another user than the daemon's, and while the daemon runs.
Every part is looked at, whatever was wrong with the one before; addresses only if no daemon has them.
"""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import socket
import stat
from collections.abc import Callable, Iterator
from functools import partial

from daemon.config import CONFIG_FILE, SiteConfig, control_access, load_config, nbd_access
from daemon.configured import control_address, nbd_addresses
from daemon.data_directory import NEXT_KEY_FILE, SECRET_KEY_FILE, check_identity, lock_site, read_keys
from daemon.nbd_tls import tcp_rules
from daemon.notify.config import NotifyConfig, secret_file_error
from daemon.signing_key import SIGNING_KEY_FILE
from daemon.tls_files import CA_FILE, DIRECTORY, SERVER_FILE
from engine.ports.clock import utc_now_ns
from engine.ports.unix_sockets import SocketAccess, check_known, socket_answers
from protocol.commands.site import CheckState, SiteCheckReply, SiteFinding
from protocol.commands.site_cert import DAY_S, ENDS_ERROR_DAYS, ENDS_WARNING_DAYS
from protocol.cut_text import NS_PER_S, time_text
from protocol.endpoints import ipc_path
from protocol.errors import Busy, FarshoreError, NotAllowed, system_error

# A file system with less free could not take one more segment of a busy group.
ROOM_BYTES_MIN = 64 << 20
INODES_MIN = 1000
LOCK_FILE = "lock"
SECRET_FILES = (SECRET_KEY_FILE, NEXT_KEY_FILE, SIGNING_KEY_FILE, CA_FILE, SERVER_FILE)
LIBVIRT_USER = "libvirt-qemu"


def check_site(directory: pathlib.Path, utc_ns: Callable[[], int] = utc_now_ns) -> SiteCheckReply:
    """What each part is. Nothing is raised for what is wrong: it is a finding."""
    found: list[SiteFinding] = []
    config: SiteConfig | None = None

    def load() -> str:
        nonlocal config
        config = load_config(directory)
        return "site.toml makes sense"

    found.append(_finding("config", load))
    found.append(_finding("identity", lambda: f"made here as {check_identity(directory).site_id}"))
    found.append(_finding("keys", lambda: f"public key {read_keys(directory).public}"))
    found.append(_finding("permissions", lambda: _permissions(directory)))
    if config is not None:
        told = [each for each in sorted(config.notify.items()) if each[1].secret or each[1].secret_file]
        found += [_finding("notify", partial(_secret, directory, name, target)) for name, target in told]
        if any(address.startswith("tcp:") for address in config.nbd):
            found.append(_finding("tls", partial(_tls, directory, config, utc_ns())))
    found.append(_finding("room", lambda: _room(directory, config)))
    runs = _finding("daemon", lambda: _daemon(directory))
    found.append(runs)
    if config is not None and runs.state is CheckState.OK:
        found += [_finding("address", look) for look in _addresses(directory, config)]
    return SiteCheckReply(
        directory=str(directory), site_name=config.name if config else None, findings=tuple(found)
    )


def _finding(check: str, look: Callable[[], str]) -> SiteFinding:
    try:
        return SiteFinding(check=check, state=CheckState.OK, said=look())
    except _Warning as warning:
        return SiteFinding(check=check, state=CheckState.WARNING, said=str(warning))
    except (FarshoreError, OSError) as error:
        failed = system_error(error) if isinstance(error, OSError) else error
        return SiteFinding(
            check=check,
            state=CheckState.FAILED,
            said=failed.message,
            next=failed.next_step or None,
            exit_code=int(failed.exit_code),
        )


class _Warning(Exception):
    """Nothing that keeps a site from starting."""


def _permissions(directory: pathlib.Path) -> str:
    place = directory.stat()
    if place.st_mode & 0o022:
        raise NotAllowed(
            f"{directory} can be changed by other users",
            subject=str(directory),
            next_step=f"chmod go-w {directory}",
        )
    for secret in (directory / name for name in SECRET_FILES):
        if secret.exists() and stat.S_IMODE(secret.stat().st_mode) & 0o077:
            raise NotAllowed(
                f"{secret} is open to other users", subject=str(secret), next_step=f"chmod 600 {secret}"
            )
    for each in sorted(directory.rglob("*")):
        if each.lstat().st_uid != place.st_uid:
            raise NotAllowed(
                f"{each} belongs to {_user(each.lstat().st_uid)}, the directory to {_user(place.st_uid)}: "
                "one of them cannot write it",
                subject=str(each),
                next_step=f"chown -R {_user(place.st_uid)} {directory}",
            )
    return f"all of it belongs to {_user(place.st_uid)}"


def _secret(directory: pathlib.Path, name: str, target: NotifyConfig) -> str:
    """That nobody else can read a notification's secret; a try says whether it is right."""
    file = target.secret_file or str(directory / CONFIG_FILE)
    if not target.secret_file and not directory.stat().st_mode & 0o001:
        return f"notify.{name}: nobody else comes to its secret"
    try:
        error = secret_file_error(file, os.stat(file))
    except OSError as failed:
        error = f"{file}: {failed.strerror or failed}"
    if error and target.secret_file:
        raise _Warning(f"notify.{name} tells nobody: {error}")
    if error:
        raise _Warning(f"the secret of notify.{name} is not one: {error}; better: `secret_file`")
    return f"notify.{name}: its secret can be read by nobody else"


def _require_time_left(end_ns: int, now_ns: int) -> None:
    left_days = (end_ns - now_ns) / NS_PER_S / DAY_S
    said = f"the certificate that hosts on TCP see is good until {time_text(end_ns)}"
    if left_days <= ENDS_ERROR_DAYS:
        next_step = "`farshore site cert init` renews it, while the site runs"
        raise FarshoreError(said, subject=SERVER_FILE, next_step=next_step)
    if left_days <= ENDS_WARNING_DAYS:
        raise _Warning(f"{said}: `farshore site cert init` renews it")


def _tls(directory: pathlib.Path, config: SiteConfig, now_ns: int) -> str:
    """How hosts may come on TCP."""
    rules, wrong = tcp_rules(directory, config)
    if wrong:
        raise FarshoreError(
            f"hosts cannot come over TLS: {wrong}",
            subject=str(directory / DIRECTORY),
            next_step="put tls/ back from a copy of the directory",
        )
    if rules.nobody:
        raise _Warning("hosts on TCP are refused until `farshore site cert init` was run")
    if rules.context is None:
        return "hosts on TCP come in the clear"
    if rules.server_end_ns:
        _require_time_left(rules.server_end_ns, now_ns)
    return "hosts on TCP come over TLS" + (", or in the clear" if rules.plain else "")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _room(directory: pathlib.Path, config: SiteConfig | None) -> str:
    there = os.statvfs(directory)
    free_bytes = there.f_bavail * there.f_frsize
    said = f"{free_bytes >> 20} MiB free"
    if there.f_flag & os.ST_RDONLY:
        raise NotAllowed(f"{directory} is on a file system that is mounted read-only", subject=str(directory))
    if free_bytes < ROOM_BYTES_MIN or (there.f_files and there.f_favail < INODES_MIN):
        raise FarshoreError(
            f"{said}, and {there.f_favail} inodes: hosts would get ENOSPC soon",
            subject=str(directory),
            next_step="make room on the file system",
        )
    if config is not None and config.journal_limit_bytes > free_bytes:
        raise _Warning(f"{said}, less than journal_limit_bytes ({config.journal_limit_bytes >> 20} MiB)")
    return said


def _daemon(directory: pathlib.Path) -> str:
    # Made by the first start, as the daemon's user.
    if not (directory / LOCK_FILE).exists():
        return "never started"
    try:
        lock_site(directory).close()
    except Busy:
        raise _Warning("it runs, and has its addresses") from None
    return "does not run"


def _addresses(directory: pathlib.Path, config: SiteConfig) -> Iterator[Callable[[], str]]:
    if config.replication:
        yield partial(_tcp, config.replication.removeprefix("tcp://"), "replication")
    if config.remote_control:
        yield partial(_tcp, config.remote_control.removeprefix("tcp://"), "remote_control")
    for door in nbd_addresses(directory, config):
        kind, _, place = door.partition(":")
        if kind == "unix":
            yield partial(_unix, place, "nbd", nbd_access(config))
        else:
            yield partial(_tcp, place, "nbd")
    access = control_access(config)
    yield lambda: _unix(ipc_path(control_address(directory, config)), "control", access)


def _tcp(place: str, key: str) -> str:
    host, _, port = place.rpartition(":")
    name = "" if host == "*" else host.strip("[]")
    try:
        found = socket.getaddrinfo(name or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        raise Busy(
            f"{key}: cannot listen on {place}: {error.strerror or error}",
            subject=place,
            next_step=f"stop what listens there, or change `{key}` in site.toml",
        ) from error
    return f"{key}: {place} is free"


def _unix(path: str, key: str, access: SocketAccess) -> str:
    check_known(access)
    above = pathlib.Path(path).parent
    if socket_answers(path):
        raise Busy(
            f"{key}: another server answers on {path}",
            subject=path,
            next_step=f"stop it, or change `{key}` in site.toml",
        )
    if not above.is_dir():
        raise _Warning(f"{key}: {above} is not there; the unit makes /run/farshore/NAME at a start")
    return f"{key}: {path} is free{may_connect(access) if key == 'nbd' else ''}"


def may_connect(access: SocketAccess, name: str = LIBVIRT_USER) -> str:
    """Whether a user, by default that of libvirt's QEMU, gets through the mode; empty without one."""
    try:
        user = pwd.getpwnam(name)
        own = grp.getgrgid(user.pw_gid).gr_name
        group = grp.getgrnam(access.group).gr_gid if access.group else os.getgid()
    except KeyError:
        return ""
    if access.mode & 0o002 or (access.mode & 0o020 and group in os.getgrouplist(user.pw_name, user.pw_gid)):
        return f"; {name} may connect"
    return f'; {name} may not connect (`nbd_socket_group = "{own}"` lets it)'
