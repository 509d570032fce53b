"""`site check`: whether a site could start as it is: its settings, identity, files, addresses and room.

Looks and changes nothing, so it may be run by another user than the daemon's, and while the daemon runs.
Every part is looked at, whatever was wrong with the one before; addresses only if no daemon has them.
"""

from __future__ import annotations

import os
import pathlib
import pwd
import stat
from collections.abc import Callable
from functools import partial
from shlex import quote

from daemon.address_check import NotInTheWay, addresses
from daemon.config import CONFIG_FILE, SiteConfig, load_config
from daemon.data_directory import NEXT_KEY_FILE, SECRET_KEY_FILE, check_identity, lock_site, read_keys
from daemon.nbd_tls import tcp_rules
from daemon.notify.config import NotifyConfig, secret_file_error
from daemon.signing_key import SIGNING_KEY_FILE
from daemon.state_there import look_at_state
from daemon.tls_files import CA_FILE, DIRECTORY, SERVER_FILE
from engine.ports.clock import utc_now_ns
from protocol.commands.site import CheckState, SiteCheckReply, SiteFinding
from protocol.commands.site_cert import DAY_S, ENDS_ERROR_DAYS, ENDS_WARNING_DAYS
from protocol.cut_text import NS_PER_S, time_text
from protocol.errors import Busy, FarshoreError, NotAllowed, system_error

# A file system with less free could not take one more segment of a busy group.
ROOM_BYTES_MIN = 64 << 20
INODES_MIN = 1000
LOCK_FILE = "lock"
SECRET_FILES = (SECRET_KEY_FILE, NEXT_KEY_FILE, SIGNING_KEY_FILE, CA_FILE, SERVER_FILE)


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
    if runs.state is CheckState.OK:
        found.append(_finding("state", lambda: look_at_state(directory)))
    if config is not None and runs.state is CheckState.OK:
        found += [_finding("address", look) for look in addresses(directory, config)]
    return SiteCheckReply(
        directory=str(directory), site_name=config.name if config else None, findings=tuple(found)
    )


def _finding(check: str, look: Callable[[], str]) -> SiteFinding:
    try:
        return SiteFinding(check=check, state=CheckState.OK, said=look())
    except NotInTheWay as warning:
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


def _permissions(directory: pathlib.Path) -> str:
    place = directory.stat()
    if place.st_mode & 0o022:
        raise NotAllowed(
            f"{directory} can be changed by other users",
            subject=str(directory),
            next_step=f"chmod go-w {quote(str(directory))}",
        )
    for secret in (directory / name for name in SECRET_FILES):
        if secret.exists() and stat.S_IMODE(secret.stat().st_mode) & 0o077:
            raise NotAllowed(
                f"{secret} is open to other users",
                subject=str(secret),
                next_step=f"chmod 600 {quote(str(secret))}",
            )
    for each in sorted(directory.rglob("*")):
        if each.lstat().st_uid != place.st_uid:
            raise NotAllowed(
                f"{each} belongs to {_user(each.lstat().st_uid)}, the directory to {_user(place.st_uid)}: "
                "one of them cannot write it",
                subject=str(each),
                next_step=f"chown -R {_user(place.st_uid)} {quote(str(directory))}",
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
        raise NotInTheWay(f"notify.{name} tells nobody: {error}")
    if error:
        raise NotInTheWay(f"the secret of notify.{name} is not one: {error}; better: `secret_file`")
    return f"notify.{name}: its secret can be read by nobody else"


def _require_time_left(end_ns: int, now_ns: int) -> None:
    left_days = (end_ns - now_ns) / NS_PER_S / DAY_S
    said = f"the certificate that hosts on TCP see is good until {time_text(end_ns)}"
    if left_days <= ENDS_ERROR_DAYS:
        next_step = "`farshore site cert init` renews it, while the site runs"
        raise FarshoreError(said, subject=SERVER_FILE, next_step=next_step)
    if left_days <= ENDS_WARNING_DAYS:
        raise NotInTheWay(f"{said}: `farshore site cert init` renews it")


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
        raise NotInTheWay("hosts on TCP are refused until `farshore site cert init` was run")
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
        inodes = f", and {there.f_favail} inodes" if there.f_files else ""
        raise NotInTheWay(f"{said}{inodes}: hosts would get ENOSPC soon; make room on the file system")
    if config is not None and config.journal_limit_bytes > free_bytes:
        raise NotInTheWay(f"{said}, less than journal_limit_bytes ({config.journal_limit_bytes >> 20} MiB)")
    return said


def _daemon(directory: pathlib.Path) -> str:
    # Made by the first start, as the daemon's user.
    if not (directory / LOCK_FILE).exists():
        return "never started"
    try:
        lock_site(directory).close()
    except Busy:
        raise NotInTheWay("it runs, and has its addresses") from None
    return "does not run"
