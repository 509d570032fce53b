"""Certificates: those of the site's door on TCP, and of the hosts that may come in by it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.bounds import Name
from protocol.commands.base import BaseCommand, Query, Reply
from protocol.endpoints import HOST_CHARS_MAX
from protocol.roles import OperatorRole

HOSTS_MAX = 64
REQUEST_CHARS_MAX = 16 << 10
DAYS_MAX = 3650
DAYS = 365
DAY_S = 86_400
# From when on it is said that a certificate ends: a warning, and what a person must look at now.
ENDS_WARNING_DAYS, ENDS_ERROR_DAYS = 30, 7

Host = Annotated[str, Meta(min_length=1, max_length=HOST_CHARS_MAX)]
Days = Annotated[int, Meta(ge=1, le=DAYS_MAX)]


class SiteCertReply(Reply, frozen=True, kw_only=True):
    """The authority, by the SHA-256 of its certificate, and the server's certificate: `hosts` are the names
    and addresses by which it is found. `in_use`: whether TCP takes hosts over TLS now; `plain`: also
    without. `left_days`: until the latter ends by the site's clock; not above 0 once it has."""

    fingerprint: str
    hosts: list[str]
    expires: str
    in_use: bool
    plain: bool
    left_days: float | None = None


class SiteCertInit(BaseCommand[SiteCertReply], frozen=True, tag="site.cert-init"):
    """Make the site's authority, if there is none, and a new certificate of the server for these names and
    addresses; none: those that it has now, and those that site.toml names."""

    needs = OperatorRole.ADMIN

    hosts: Annotated[tuple[Host, ...], Meta(max_length=HOSTS_MAX)] = ()


class CertificateInfo(Reply, frozen=True, kw_only=True):
    """A host's certificate. `serial` in hex; `revoked` is null while it is good. `left_days` as of the
    site's own."""

    name: str
    serial: str
    expires: str
    revoked: str | None
    left_days: float | None = None


class SiteCertIssueReply(CertificateInfo, frozen=True, kw_only=True):
    """What the host needs beside its key, as PEM."""

    certificate: str
    ca_certificate: str
    fingerprint: str


class SiteCertIssue(BaseCommand[SiteCertIssueReply], frozen=True, tag="site.cert-issue"):
    """A certificate for a host; `request` (PKCS #10, PEM) has its public key."""

    needs = OperatorRole.ADMIN

    host: Name
    request: Annotated[str, Meta(max_length=REQUEST_CHARS_MAX)]
    days: Days = DAYS


class SiteCertListReply(SiteCertReply, frozen=True, kw_only=True):
    """By name and end."""

    certificates: list[CertificateInfo]


class SiteCertList(Query[SiteCertListReply], frozen=True, tag="site.cert-list"):
    """The site's certificates, and those of hosts that have not ended long ago."""


class SiteCertRevokeReply(Reply, frozen=True, kw_only=True):
    """What became invalid; `hosts` are connections that were closed."""

    certificates: list[CertificateInfo]
    hosts: list[str]


class SiteCertRevoke(BaseCommand[SiteCertRevokeReply], frozen=True, tag="site.cert-revoke"):
    """Let no host in any more by the certificates of that name that there are now."""

    needs = OperatorRole.ADMIN

    host: Name
