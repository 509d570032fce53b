"""A site's certificates: what they are, how they come to be used, and that damaged ones open no door."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from daemon import certificates
from daemon.config import CONFIG_FILE, SiteConfig, check_config
from daemon.nbd_tls import tcp_rules
from daemon.operations.site_cert import own_hosts
from daemon.reloading import reload_config
from daemon.site import Site
from daemon.tls_files import CA_FILE, ISSUED_FILE, SERVER_FILE, issued
from engine.ports.durable import RealDisk
from protocol.commands.site_cert import SiteCertInit, SiteCertIssue, SiteCertList, SiteCertRevoke
from protocol.commands.volume import VolumeCreate, VolumeUri
from protocol.errors import Corruption, NotFound, UsageError
from tests.support.sites import free_port, short_directory
from tests.support.tls import TestAuthority, request_of
from tests.unit.daemon.stage import carried_out, make_one_site

BROKEN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
TCP = ("tcp:127.0.0.1:10809",)


def rules(directory: Path, mode: str, *, insecure: bool) -> tuple[bool, bool, str]:
    """Whether there is TLS, whether hosts may come without, and what is wrong."""
    config = SiteConfig(name="a", nbd=TCP, nbd_tls=mode, insecure=insecure)  # type: ignore[arg-type]
    found, wrong = tcp_rules(directory, config)
    return found.context is not None, found.plain, wrong


@pytest.mark.parametrize(
    ("mode", "insecure", "without", "with_some"),
    [
        ("auto", False, (False, False), (True, False)),
        ("auto", True, (False, True), (True, False)),
        ("require", False, (False, False), (True, False)),
        ("require", True, (False, False), (True, False)),
        ("allow", True, (False, True), (True, True)),
        ("off", True, (False, True), (False, True)),
    ],
)
def test_how_hosts_may_come(
    tmp_path: Path, mode: str, insecure: bool, without: tuple[bool, bool], with_some: tuple[bool, bool]
) -> None:
    assert rules(tmp_path, mode, insecure=insecure) == (*without, "")
    TestAuthority(tmp_path)
    assert rules(tmp_path, mode, insecure=insecure) == (*with_some, "")


@pytest.mark.parametrize("name", [CA_FILE, SERVER_FILE, ISSUED_FILE])
@pytest.mark.parametrize("content", ["", "rubbish", BROKEN])
def test_what_is_damaged_opens_no_door(tmp_path: Path, name: str, content: str) -> None:
    TestAuthority(tmp_path)
    (tmp_path / name).write_text(content)
    tls, plain, wrong = rules(tmp_path, "auto", insecure=True)
    assert (tls, plain) == (False, False)
    assert wrong


@pytest.mark.parametrize("mode", ["allow", "off"])
def test_tcp_in_the_clear_must_be_said(mode: str) -> None:
    config = SiteConfig(name="a", nbd=TCP, nbd_tls=mode)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="readable and writable by whoever"):
        check_config(config, "x")
    check_config(SiteConfig(name="a", nbd=TCP), "x")


def test_what_is_written_is_for_the_daemons_user_only(tmp_path: Path) -> None:
    TestAuthority(tmp_path).host("h", tmp_path / "h")
    for name in (CA_FILE, SERVER_FILE, ISSUED_FILE):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700


def test_an_authority_signs_hosts_and_nothing_else(tmp_path: Path) -> None:
    files = TestAuthority(tmp_path).host("h", tmp_path / "h")
    ca, host = (x509.load_pem_x509_certificate(each.read_bytes()) for each in (files.ca, files.cert))
    host.verify_directly_issued_by(ca)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert not host.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    uses = host.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def rsa_request(bits: int) -> str:
    key = rsa.generate_private_key(65537, bits)
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_only_a_good_request_is_signed(tmp_path: Path) -> None:
    TestAuthority(tmp_path)
    disk = RealDisk(tmp_path, None)
    authority = certificates.Authority(disk)
    good = request_of("h")[1]
    lines = good.splitlines()
    forged = "\n".join([*lines[:3], lines[3][::-1], *lines[4:]])
    for bad in ("", "x", good[:100], forged, rsa_request(1024)):
        with pytest.raises(UsageError):
            authority.issue("h", bad, 10**18, 1)
    assert issued(disk) == ()
    authority.issue("h", rsa_request(2048), 10**18, 1)


def test_rows_of_what_has_ended_go(tmp_path: Path) -> None:
    TestAuthority(tmp_path)
    disk = RealDisk(tmp_path, None)
    authority, day_ns = certificates.Authority(disk), 86_400 * 10**9
    for number in range(4):
        authority.issue(f"h{number}", request_of("x")[1], 10**18 + 2 * number * day_ns, 3)
    assert [row.name for row in issued(disk)] == ["h2", "h3"]


@pytest.mark.parametrize("host", ["", "a b", "-x", "x/y", "1.2.3.4.5.6:7", "ä"])
def test_a_server_is_found_by_names_and_addresses_only(tmp_path: Path, host: str) -> None:
    TestAuthority(tmp_path)
    with pytest.raises(UsageError, match="neither a name nor an address"):
        certificates.Authority(RealDisk(tmp_path, None)).make_server("a", [host], 10**18)


@pytest.mark.parametrize(
    ("door", "hosts"),
    [
        ("tcp:10.0.0.1:10809", ["10.0.0.1"]),
        ("tcp:127.0.0.1:1", ["127.0.0.1", "localhost"]),
        ("tcp:[::1]:1", ["::1", "localhost"]),
        ("tcp:[fe80::1%eth0]:1", ["fe80::1"]),
        ("tcp:store.example:1", ["store.example"]),
        ("tcp:0.0.0.0:1", [socket.gethostname(), "localhost", "127.0.0.1", "::1"]),
        ("tcp::10809", [socket.gethostname(), "localhost", "127.0.0.1", "::1"]),
        ("unix:/x", [socket.gethostname()]),
    ],
)
def test_a_server_is_known_by_where_it_listens(tmp_path: Path, door: str, hosts: list[str]) -> None:
    assert list(own_hosts([door])) == hosts
    TestAuthority(tmp_path)
    certificates.Authority(RealDisk(tmp_path, None)).make_server("a", hosts, 10**18)


def run(work: Callable[[Site], Awaitable[None]]) -> None:
    async def whole() -> None:
        parent = short_directory()
        site = await make_one_site(parent, "a")
        try:
            await work(site)
        finally:
            await site.stop()
            shutil.rmtree(parent)

    asyncio.run(whole())


def test_from_the_first_certificate_on_the_door_talks_tls() -> None:
    async def work(site: Site) -> None:
        with pytest.raises(NotFound, match="no certificates yet"):
            await carried_out(site, SiteCertList())
        with pytest.raises(NotFound, match="no certificates yet"):
            await carried_out(site, SiteCertIssue(host="h", request=request_of("h")[1]))
        port, path = free_port(), site.directory / CONFIG_FILE
        path.write_text(f'{path.read_text()}\nnbd = ["tcp:127.0.0.1:{port}"]\n')
        await reload_config(site)
        await carried_out(site, VolumeCreate(group="g", volume="v", size_bytes=1 << 20))
        assert not (await carried_out(site, VolumeUri(group="g", volume="v"))).tls
        made = await carried_out(site, SiteCertInit())
        assert (made.hosts, made.in_use, made.plain) == (["127.0.0.1", "localhost"], True, False)
        assert (await carried_out(site, VolumeUri(group="g", volume="v"))).tls
        again = await carried_out(site, SiteCertInit(hosts=("store.example", "::1")))
        assert again.fingerprint == made.fingerprint
        assert again.hosts == ["store.example", "::1"]
        got = await carried_out(site, SiteCertIssue(host="h", request=request_of("h")[1], days=7))
        listed = await carried_out(site, SiteCertList())
        assert [(each.name, each.serial, each.revoked) for each in listed.certificates] == [
            ("h", got.serial, None)
        ]
        gone = await carried_out(site, SiteCertRevoke(host="h"))
        assert [each.serial for each in gone.certificates] == [got.serial]
        assert site.nbd.tcp.revoked == {got.serial}
        with pytest.raises(NotFound):
            await carried_out(site, SiteCertRevoke(host="h"))

    run(work)


def test_who_is_revoked_stays_out_though_other_files_are_damaged() -> None:
    async def work(site: Site) -> None:
        await carried_out(site, SiteCertInit())
        before = site.nbd.tcp.context
        got = await carried_out(site, SiteCertIssue(host="h", request=request_of("h")[1]))
        (site.directory / SERVER_FILE).write_text("rubbish")
        await carried_out(site, SiteCertRevoke(host="h"))
        assert (site.nbd.tcp.context, site.nbd.tcp.revoked) == (before, frozenset({got.serial}))
        (site.directory / ISSUED_FILE).write_text("rubbish")
        await reload_config(site)
        assert (site.nbd.tcp.context, site.nbd.tcp.revoked) == (before, frozenset({got.serial}))

    run(work)


def test_files_that_are_damaged_later_leave_what_is_in_use() -> None:
    async def work(site: Site) -> None:
        await carried_out(site, SiteCertInit())
        before = site.nbd.tcp.context
        assert isinstance(before, ssl.SSLContext)
        (site.directory / SERVER_FILE).write_text("rubbish")
        await reload_config(site)
        assert site.nbd.tcp.context is before
        kinds = [event.kind for event in site.events.since(0, 10_000)[0]]
        assert "nbd.tls_unusable" in kinds
        with pytest.raises(Corruption):
            await carried_out(site, SiteCertList())
        await carried_out(site, SiteCertInit())
        assert site.nbd.tcp.context is not before

    run(work)


FIRST_COMMAND = """
import asyncio, sys, threading
from pathlib import Path
from protocol.commands.site_cert import SiteCertInit
from tests.unit.daemon.stage import carried_out, make_one_site

taken_up = []

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "cryptography":
            taken_up.append(threading.current_thread() is threading.main_thread())

async def main():
    site = await make_one_site(Path(sys.argv[1]), "a")
    sys.meta_path.insert(0, Finder())
    await carried_out(site, SiteCertInit(hosts=("a.example",)))
    await site.stop()

asyncio.run(main())
print(taken_up)
"""


def test_the_first_command_takes_cryptography_up_away_from_the_loop() -> None:
    """It takes 50 ms of processor time, in which no host would be answered."""
    directory = short_directory()
    done = subprocess.run(
        [sys.executable, "-c", FIRST_COMMAND, str(directory)], capture_output=True, text=True, check=True
    )
    shutil.rmtree(directory)
    assert done.stdout.splitlines()[-1] == "[False]"
