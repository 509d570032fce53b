"""Whether the addresses of a site are free, and who may connect there; for `site check`."""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import socket
import stat
from collections.abc import Callable, Iterator
from functools import partial

from daemon.config import SiteConfig, control_access, nbd_access
from daemon.configured import control_address, nbd_addresses
from engine.ports.unix_sockets import SocketAccess, check_known, socket_answers
from protocol.endpoints import ipc_path
from protocol.errors import Busy

LIBVIRT_USER = "libvirt-qemu"


class NotInTheWay(Exception):
    """What is wrong, and keeps no site from starting."""


def addresses(directory: pathlib.Path, config: SiteConfig) -> Iterator[Callable[[], str]]:
    """A look at each address that the site would listen on. FarshoreError from a look that finds it taken."""
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
    if config.metrics:
        yield partial(_metrics, config.metrics, [config.replication, config.remote_control, *config.nbd])
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


def _metrics(place: str, others: list[str]) -> str:
    """A site serves without its figures."""
    if place in (each.rpartition("/")[2].removeprefix("tcp:") for each in others):
        raise NotInTheWay(f"metrics: {place} is another address of this site, so nobody gets figures")
    try:
        return _tcp(place, "metrics")
    except Busy as busy:
        raise NotInTheWay(f"{busy.message}; nobody gets figures") from busy


def _unix(path: str, key: str, access: SocketAccess) -> str:
    check_known(access)
    above = pathlib.Path(path).parent
    if socket_answers(path):
        raise Busy(
            f"{key}: another server answers on {path}",
            subject=path,
            next_step=f"stop it, or change `{key}` in site.toml",
        )
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise Busy(
            f"{key}: {path} is there, and is no socket",
            subject=path,
            next_step=f"move it away, or change `{key}` in site.toml",
        )
    if not above.is_dir():
        raise NotInTheWay(f"{key}: {above} is not there; the unit makes /run/farshore/NAME at a start")
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
