"""Commands about certificates: the site's own, and hosts'."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress

from msgspec.structs import replace

from daemon.nbd_tls import renew_rules
from daemon.operations.registry import carries_out
from daemon.operations.shapes import extended, time_or_none
from daemon.site import Site
from daemon.tls_files import Issued, issued, there_are_some, write_issued
from protocol.commands.site_cert import (
    DAY_S,
    HOSTS_MAX,
    CertificateInfo,
    SiteCertInit,
    SiteCertIssue,
    SiteCertIssueReply,
    SiteCertList,
    SiteCertListReply,
    SiteCertReply,
    SiteCertRevoke,
    SiteCertRevokeReply,
)
from protocol.cut_text import NS_PER_S, time_text
from protocol.endpoints import is_every_address
from protocol.errors import FarshoreError, NotFound
from protocol.hosts import certificate_host

# `daemon.certificates` is imported where it is needed: `cryptography` would cost each start 50 ms. The first
# command that needs it does so away from the loop.


async def _take_up_cryptography() -> None:
    await asyncio.to_thread(importlib.import_module, "daemon.certificates")


@carries_out(SiteCertInit)
async def init(site: Site, command: SiteCertInit) -> SiteCertReply:
    """The authority if there is none, and the server's certificate in any case."""
    await _take_up_cryptography()
    from daemon.certificates import Authority, make_authority

    now_ns = site.clock.utc_ns()
    hosts = list(command.hosts) or _known_hosts(site)
    if there_are_some(site.disk):
        authority = Authority(site.disk)
    else:
        authority = make_authority(site.disk, site.config.name, site.identity.site_id, now_ns)
    authority.make_server(site.config.name, hosts, now_ns)
    renew_rules(site.directory, site.config, site.nbd, site.events.emit, site.clock)
    site.events.emit("cert.made", object="server", hosts=" ".join(hosts))
    return _shown(site)


def _known_hosts(site: Site) -> list[str]:
    """Those by which hosts find the site now, which may have been given by hand, and those of its doors."""
    from daemon.certificates import server_names

    before: list[str] = []
    if there_are_some(site.disk):
        with suppress(FarshoreError):  # of a damaged one a new one is made
            before, _ = server_names(site.disk)
    return list(dict.fromkeys([*before, *own_hosts(site.nbd_addresses)]))[:HOSTS_MAX]


def own_hosts(doors: Iterable[str]) -> Iterator[str]:
    """The names and addresses at which hosts may look for a site's doors on TCP."""
    tcp = [address.removeprefix("tcp:") for address in doors if address.startswith("tcp:")]
    for place in tcp:
        host = place.rpartition(":")[0].strip("[]").partition("%")[0]
        if not host or is_every_address(f"tcp://{host}:1"):
            yield from (socket.gethostname(), "localhost", "127.0.0.1", "::1")
        else:
            yield host
            if _is_loopback(host):
                yield "localhost"
    if not tcp:
        yield socket.gethostname()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(site: Site) -> SiteCertReply:
    from daemon.certificates import Authority, server_names

    hosts, end_ns = server_names(site.disk)
    return SiteCertReply(
        fingerprint=Authority(site.disk).fingerprint,
        hosts=hosts,
        expires=time_text(end_ns),
        in_use=site.nbd.tcp.context is not None,
        plain=site.nbd.tcp.plain,
        left_days=_left_days(site, end_ns),
    )


@carries_out(SiteCertIssue)
async def issue(site: Site, command: SiteCertIssue) -> SiteCertIssueReply:
    """Sign a host's request."""
    await _take_up_cryptography()
    from daemon.certificates import Authority

    authority = Authority(site.disk)
    certificate, row = authority.issue(command.host, command.request, site.clock.utc_ns(), command.days)
    site.events.emit("cert.issued", object=row.name, serial=row.serial)
    return extended(
        SiteCertIssueReply,
        _row(site, row),
        certificate=certificate,
        ca_certificate=authority.pem,
        fingerprint=authority.fingerprint,
    )


@carries_out(SiteCertList)
async def list_certificates(site: Site, _: SiteCertList) -> SiteCertListReply:
    """The site's, and every host's."""
    await _take_up_cryptography()
    rows = sorted(issued(site.disk), key=lambda row: (row.name, row.not_after_utc_ns))
    return extended(SiteCertListReply, _shown(site), certificates=[_row(site, row) for row in rows])


@carries_out(SiteCertRevoke)
async def revoke(site: Site, command: SiteCertRevoke) -> SiteCertRevokeReply:
    """Refuse every certificate of a name, and close what came in by it."""
    now_ns = site.clock.utc_ns()
    rows = list(issued(site.disk))
    good = [row for row in rows if row.name == command.host and not row.revoked_utc_ns]
    if not good:
        raise NotFound(
            f"there is no certificate of {command.host} that is good",
            subject=command.host,
            next_step="`farshore site cert list`",
        )
    gone = {row.serial: replace(row, revoked_utc_ns=now_ns) for row in good}
    write_issued(site.disk, [gone.get(row.serial, row) for row in rows])
    renew_rules(site.directory, site.config, site.nbd, site.events.emit, site.clock)
    connections = site.exports.connections_from(certificate_host(command.host))
    hosts = [each.client for each in connections]
    for each in connections:
        each.shut()
    site.events.emit("cert.revoked", object=command.host, serials=" ".join(gone))
    return SiteCertRevokeReply(certificates=[_row(site, row) for row in gone.values()], hosts=hosts)


def _left_days(site: Site, end_ns: int) -> float:
    return round((end_ns - site.clock.utc_ns()) / NS_PER_S / DAY_S, 2)


def _row(site: Site, row: Issued) -> CertificateInfo:
    return CertificateInfo(
        name=row.name,
        serial=row.serial,
        expires=time_text(row.not_after_utc_ns),
        revoked=time_or_none(row.revoked_utc_ns),
        left_days=_left_days(site, row.not_after_utc_ns),
    )
