"""`site cert` and `volume allow`: what is asked of the site, and what is left at the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import structs

from protocol.commands.site_cert import (
    SiteCertInit,
    SiteCertIssue,
    SiteCertIssueReply,
    SiteCertReply,
)
from protocol.commands.volume_access import (
    AccessEntry,
    VolumeAccess,
    VolumeAccessReply,
    VolumeAllow,
    VolumeDisallow,
)
from protocol.errors import ExitCode
from tests.support.tls import request_of
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import REPLIES, StubSite

Run = Callable[..., Ran]
ENDS = "2027-07-03T00:46:00Z"
MADE = SiteCertReply(fingerprint="AA:BB", hosts=["store"], expires=ENDS, in_use=True, plain=False)
ISSUED = SiteCertIssueReply(
    name="vmhost1",
    serial="0A",
    expires=ENDS,
    revoked=None,
    certificate="CERT\n",
    ca_certificate="CA\n",
    fingerprint="AA:BB",
)
LIST = VolumeAccessReply(
    group="g",
    volume="v",
    everybody=False,
    entries=[AccessEntry(host="cert:vmhost1", right="ro", connections=2)],
    closed=["10.0.0.9:4000"],
)


@pytest.fixture
def here(stub: StubSite, farshore: Run) -> Run:
    """`farshore WORDS --site` of the stub, which knows the replies."""
    stub.replies |= {"site.cert-init": MADE, "site.cert-issue": ISSUED}
    stub.replies |= {f"volume.{verb}": LIST for verb in ("allow", "disallow", "access")}
    return lambda *words: farshore(*words, "--site", str(stub.directory))


def test_a_certificate_is_for_names(stub: StubSite, here: Run) -> None:
    ran = here("site", "cert", "init", "--host", "store", "--host", "10.0.0.1")
    assert ran.code == 0, ran.err
    assert stub.asked == [SiteCertInit(hosts=("store", "10.0.0.1"))]
    assert "over TLS only" in ran.out


def test_a_hosts_key_is_made_here_and_stays_here(stub: StubSite, here: Run, home: Path) -> None:
    ran = here("site", "cert", "issue", "vmhost1", "--to", str(home / "h"), "--days", "7")
    assert ran.code == 0, ran.err
    (asked,) = stub.asked
    assert isinstance(asked, SiteCertIssue)
    assert (asked.host, asked.days) == ("vmhost1", 7)
    assert "PRIVATE" not in asked.request
    files = {each.name: each for each in (home / "h").iterdir()}
    assert sorted(files) == ["ca-cert.pem", "client-cert.pem", "client-key.pem"]
    assert {name: each.stat().st_mode & 0o777 for name, each in files.items()} == {
        "ca-cert.pem": 0o644,
        "client-cert.pem": 0o644,
        "client-key.pem": 0o600,
    }
    assert files["client-cert.pem"].read_text() == "CERT\n"
    key = load_pem_private_key(files["client-key.pem"].read_bytes(), None)
    assert x509.load_pem_x509_csr(asked.request.encode()).public_key() == key.public_key()


def test_nothing_is_overwritten_unless_asked(stub: StubSite, here: Run, home: Path) -> None:
    words = ("site", "cert", "issue", "vmhost1", "--to", str(home / "h"))
    assert here(*words).code == 0
    key = (home / "h" / "client-key.pem").read_bytes()
    ran = here(*words)
    assert ran.code == ExitCode.WRONG_STATE
    assert len(stub.asked) == 1
    assert (home / "h" / "client-key.pem").read_bytes() == key
    assert here(*words, "--replace").code == 0
    assert (home / "h" / "client-key.pem").read_bytes() != key


def test_a_key_that_stays_at_the_host(stub: StubSite, here: Run, home: Path) -> None:
    request = home / "host.csr"
    request.write_text(request_of("x")[1])
    words = ("site", "cert", "issue", "vmhost1", "--to", str(home / "h"), "--request")
    assert here(*words, str(request)).code == 0
    assert stub.asked[0].request == request.read_text()
    assert sorted(each.name for each in (home / "h").iterdir()) == ["ca-cert.pem", "client-cert.pem"]
    for bad in (home / "none", home):
        assert here(*words, str(bad), "--replace").code == ExitCode.USAGE


def test_who_may_open_a_volume(stub: StubSite, here: Run) -> None:
    ran = here("volume", "allow", "g/v", "vmhost1", "ro")
    assert (ran.code, ran.out) == (0, "cert:vmhost1 may open g/v, ro\n")
    assert "closed: 10.0.0.9:4000" in ran.err
    here("volume", "allow", "g/v", "1000", "rw", "--force")
    here("volume", "disallow", "g/v", "uid:1000")
    here("volume", "disallow", "g/v", "--all")
    assert "cert:vmhost1  ro     2" in here("volume", "access", "g/v").out
    assert stub.asked == [
        VolumeAllow(group="g", volume="v", host="cert:vmhost1", right="ro"),
        VolumeAllow(group="g", volume="v", host="uid:1000", right="rw", force=True),
        VolumeDisallow(group="g", volume="v", host="uid:1000"),
        VolumeDisallow(group="g", volume="v", host=None),
        VolumeAccess(group="g", volume="v"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        "allow g/v Ä ro",
        "allow g/v h wo",
        "allow g h ro",
        "disallow g/v",
        "disallow g/v h --all",
        "allow g/v h",
    ],
)
def test_what_is_not_clear_is_not_asked(stub: StubSite, here: Run, words: str) -> None:
    assert here("volume", *words.split()).code == ExitCode.USAGE
    assert stub.asked == []


def test_a_uri_for_another_machine(stub: StubSite, here: Run) -> None:
    where = REPLIES["volume.uri"]
    stub.replies["volume.uri"] = structs.replace(where, tcp="10.0.0.1:10809", tcp_tls=True)
    assert here("volume", "uri", "vm1/root").out == "nbd+unix:///vm1/root?socket=/srv/lon/nbd.sock\n"
    assert here("volume", "uri", "vm1/root", "--tcp").out == "nbds://10.0.0.1:10809/vm1/root\n"
    stub.replies["volume.uri"] = structs.replace(where, tcp="0.0.0.0:10809", tls=True)
    assert "every address" in here("volume", "uri", "vm1/root", "--tcp").err
    stub.replies["volume.uri"] = where
    ran = here("volume", "uri", "vm1/root", "--tcp")
    assert ran.code == ExitCode.USAGE
    assert "nbd in its site.toml" in ran.err
