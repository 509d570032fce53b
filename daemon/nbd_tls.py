"""How hosts may come on TCP, by site.toml and the certificates that there are.

    nbd_tls      certificates    `insecure`    hosts on TCP
    auto         none            no            nobody
    auto         none            yes           in the clear
    auto         some            any           over TLS
    require      any             any           over TLS; nobody without certificates
    allow        any             yes           as they like
    off          any             yes           in the clear

Certificates that cannot be read are some: what is damaged opens no door (docs/decisions/0028).
"""

from __future__ import annotations

import pathlib
from dataclasses import replace
from enum import StrEnum

from daemon.config import SiteConfig
from daemon.parts import HostDoor
from daemon.tls_files import CA_FILE, DIRECTORY, SERVER_FILE, issued, there_are_some
from engine.group.listeners import Emit
from engine.ports.clock import Clock
from engine.ports.disk import Disk
from engine.ports.durable import RealDisk
from protocol.errors import FarshoreError
from site_primary.nbd.tls import TcpRules, server_context


class TlsMode(StrEnum):
    """What site.toml says of TLS."""

    AUTO = "auto"
    REQUIRE = "require"
    ALLOW = "allow"
    OFF = "off"


def tcp_rules(directory: pathlib.Path, config: SiteConfig) -> tuple[TcpRules, str]:
    """The rules, and what is wrong with the certificates, or nothing."""
    mode, disk = TlsMode(config.nbd_tls), RealDisk(directory, None)
    if mode is TlsMode.OFF:
        return TcpRules(plain=config.insecure), ""
    there = there_are_some(disk)
    plain = config.insecure and (mode is TlsMode.ALLOW or (mode is TlsMode.AUTO and not there))
    if not there:
        return TcpRules(plain=plain), ""
    revoked = frozenset[str]()
    try:
        revoked = frozenset(row.serial for row in issued(disk) if row.revoked_utc_ns)
        context = server_context(str(directory / SERVER_FILE), str(directory / CA_FILE))
    except (FarshoreError, OSError) as error:  # ssl.SSLError is one
        return TcpRules(plain=plain, revoked=revoked), str(error)
    return TcpRules(context=context, plain=plain, revoked=revoked, server_end_ns=_end_ns(disk)), ""


def _end_ns(disk: Disk) -> int:
    # Here: a site without certificates must not load `cryptography`.
    from daemon.certificates import server_end_ns

    return server_end_ns(disk)


def renew_rules(
    directory: pathlib.Path, config: SiteConfig, door: HostDoor, emit: Emit, clock: Clock
) -> None:
    """Let hosts come as site.toml and the certificates now say; an event if the latter cannot be used. Those
    that are used already then stay in use, but for what is revoked."""
    rules, wrong = tcp_rules(directory, config)
    if wrong:
        rules = replace(door.tcp, plain=rules.plain, revoked=door.tcp.revoked | rules.revoked)
        emit("nbd.tls_unusable", object=DIRECTORY, error=wrong, next="mend the files, then SIGHUP")
    door.tcp = replace(rules, clock=clock)
