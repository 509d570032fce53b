"""A certificate of the site that ends: who is told, what hosts are told, and that a new one cuts nobody off.

Nothing here waits for a certificate's end: certificates are made as if long ago.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from daemon.alerts.watch import AlertWatch
from daemon.certificates import SERVER_DAYS
from daemon.config import SiteConfig
from daemon.data_directory import make_site
from daemon.metrics.snapshot import take
from daemon.site import Site
from engine.ports.clock import utc_now_ns
from protocol.commands.event import EventInfo
from protocol.commands.site import SiteStatus
from protocol.commands.site_cert import SiteCertInit, SiteCertIssue, SiteCertList
from protocol.commands.volume import VolumeCreate
from protocol.nbd.client import encode_option
from protocol.nbd.constants import REQUEST_MAGIC, Command, Option
from protocol.nbd.requests import REQUEST
from tests.support.sites import free_port, short_directory
from tests.support.tls import DAY_NS, HostFiles, TestAuthority, exactly, over_tls, request_of
from tests.unit.daemon.stage import carried_out, open_site

SIZE_AND_FLAGS_BYTES, SIMPLE_REPLY_BYTES = 10, 16
Work = Callable[[Site, int, HostFiles], Awaitable[None]]


def run(left_days: float, work: Work) -> None:
    """At a site whose certificate is good for so long, given its port on TCP and a host's files."""

    async def whole() -> None:
        directory, port = short_directory() / "a", free_port()
        replication = f"tcp://127.0.0.1:{free_port()}"
        make_site(directory, SiteConfig(name="a", replication=replication, nbd=(f"tcp:127.0.0.1:{port}",)))
        made_ns = utc_now_ns() - SERVER_DAYS * DAY_NS + int(left_days * DAY_NS)
        TestAuthority(directory, made_ns)
        host = TestAuthority.of_site(directory).host("h", directory.parent / "h")
        site = open_site(directory)
        await site.start()
        try:
            await carried_out(site, VolumeCreate(group="g", volume="v", size_bytes=1 << 20))
            await work(site, port, host)
        finally:
            await site.stop()

    asyncio.run(whole())


def said(site: Site) -> list[EventInfo]:
    return [each for each in site.events.since(0, 10_000)[0] if each.kind.startswith("cert.ends")]


@pytest.mark.parametrize(
    ("left_days", "levels"), [(31.5, []), (20.5, ["warning"]), (6.5, ["warning", "error"])]
)
def test_it_is_said_before_and_over_with_a_new_one(left_days: float, levels: list[str]) -> None:
    async def work(site: Site, port: int, host: HostFiles) -> None:
        watch = AlertWatch(site)
        watch.look()
        assert [each.level for each in said(site)] == levels
        assert all("farshore site cert init" in str(each.fields["next"]) for each in said(site))
        assert watch.well() is ("error" not in levels)
        left = (await take(site, watch.standing)).certificate_left_days
        assert left is not None
        assert left_days - 1 < left <= left_days
        expires = (await carried_out(site, SiteStatus())).certificate_expires
        assert expires == (await carried_out(site, SiteCertList())).expires
        made = await carried_out(site, SiteCertInit())
        assert made.left_days is not None
        assert made.left_days > SERVER_DAYS - 1
        watch.look()
        assert [each.resolved for each in said(site)] == [False] * len(levels) + [True] * len(levels)
        assert (await carried_out(site, SiteStatus())).certificate_expires == made.expires != expires

    run(left_days, work)


def test_hosts_stay_connected_and_find_the_site_by_the_same_names() -> None:
    async def work(site: Site, port: int, host: HostFiles) -> None:
        await carried_out(site, SiteCertInit(hosts=("127.0.0.1", "nas.example")))
        before = await asyncio.to_thread(opened, port, host)
        with before:
            made = await carried_out(site, SiteCertInit())
            assert made.hosts == ["127.0.0.1", "nas.example", "localhost"]
            first, second = before.getpeercert(), await asyncio.to_thread(opened, port, host)
            with second:
                assert first is not None
                assert (second.getpeercert() or {})["serialNumber"] != first["serialNumber"]
                for connection in (before, second):
                    await asyncio.to_thread(serves, connection)

    run(100, work)


def opened(port: int, host: HostFiles) -> ssl.SSLSocket:
    """A host's connection that has opened the volume."""
    made = over_tls(port, host.context())
    made.sendall(encode_option(Option.EXPORT_NAME, b"g/v"))
    assert len(exactly(made, SIZE_AND_FLAGS_BYTES)) == SIZE_AND_FLAGS_BYTES
    return made


def serves(connection: ssl.SSLSocket) -> None:
    """It is answered what it reads."""
    connection.sendall(REQUEST.pack(REQUEST_MAGIC, 0, Command.READ, 7, 0, 4096))
    assert exactly(connection, SIMPLE_REPLY_BYTES + 4096)[SIMPLE_REPLY_BYTES:] == bytes(4096)


def refusals(log: Iterable[MutableMapping[str, Any]]) -> list[str]:
    return [each["reason"] for each in log if each["event"] == "nbd.tls_refused"]


def test_what_a_host_is_refused_for_once_it_has_ended_is_named() -> None:
    async def work(site: Site, port: int, host: HostFiles) -> None:
        def come() -> None:
            with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
                over_tls(port, host.context())

        await asyncio.to_thread(come)
        async with asyncio.timeout(30):
            while not refusals(log):  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0.01)
        await carried_out(site, SiteCertInit())
        (await asyncio.to_thread(over_tls, port, host.context())).close()

    with capture_logs() as log:
        run(-1.5, work)
    (refused,) = refusals(log)
    assert "expired" in refused
    assert "this site's certificate has ended: `farshore site cert init` renews it" in refused


def test_how_long_hosts_certificates_are_good_is_listed() -> None:
    async def work(site: Site, port: int, host: HostFiles) -> None:
        await carried_out(site, SiteCertIssue(host="short", request=request_of("short")[1], days=3))
        listed = await carried_out(site, SiteCertList())
        left = {each.name: each.left_days for each in listed.certificates}
        assert left["short"] is not None
        assert 2.9 < left["short"] <= 3
        assert left["h"] is not None
        assert left["h"] > 300

    run(100, work)
