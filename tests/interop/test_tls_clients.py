"""Hosts over TLS with clients that people have: nbdinfo, nbdcopy, qemu-img; and those that may not come."""

from __future__ import annotations

import contextlib
import json
import ssl
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.nbd.client import encode_option
from protocol.nbd.constants import Option
from tests.support.clients import MIB, NBDSH_PYTHON, call, patchy_image, same_content, succeed
from tests.support.sites import Site, free_port, running_sites
from tests.support.tls import STARTTLS, HostFiles, TestAuthority, greeted, over_tls

PATIENCE_S = 20.0
Tool = Callable[[str], str]


class TlsSite:
    """A site with a door on TCP, and certificates."""

    def __init__(self, site: Site, port: int) -> None:
        self.site, self.port = site, port
        self.home = site.directory.parent
        self.first = self.issue("first")

    def issue(self, name: str) -> HostFiles:
        to = self.home / name
        self.site.farshore("site", "cert", "issue", name, "--to", str(to))
        return HostFiles(to)

    def uri(self, volume: str, files: HostFiles | None = None) -> str:
        told = self.site.farshore("volume", "uri", volume, "--tcp").strip()
        assert told == f"nbds://127.0.0.1:{self.port}/{volume}"
        return f"{told}?tls-certificates={(files or self.first).directory}"

    def refusals(self) -> list[str]:
        return [each["reason"] for each in self.site.log() if each["event"] == "nbd.tls_refused"]

    def refused_once(self, words: tuple[str, ...]) -> str:
        """Why the site refused a client, which it said once."""
        before = len(self.refusals())
        assert call(*words).returncode != 0, words
        (found,) = self.refused_since(before, 1)
        return found

    def refused_since(self, before: int, count: int) -> list[str]:
        """Why clients were refused, once so many were: it may notice the end of one a moment later."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := self.refusals()[before:]) < count:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def tls() -> Iterator[TlsSite]:
    with running_sites("a") as (site,):
        path, port = site.directory / "site.toml", free_port()
        doors = f'nbd = ["unix:{site.nbd_socket}", "tcp:127.0.0.1:{port}"]\n'
        path.write_text(doors + path.read_text())
        site.stop()
        site.start()
        site.farshore("site", "cert", "init")
        for volume, size in (("g/v", "64M"), ("g/w", "8M")):
            site.create_volume(volume, size)
        yield TlsSite(site, port)
        assert site.stop() == 0
        site.check_log()


def script(uri: str, text: str) -> str:
    """What nbdsh prints, connected to a URI that names files."""
    begin = f"h.set_uri_allow_local_file(True)\nh.connect_uri({uri!r})\n"
    return succeed(NBDSH_PYTHON, "-m", "nbd", "-c", begin + textwrap.dedent(text))


def exports_of(tool: Tool, uri: str) -> list[str]:
    """The names that nbdinfo lists."""
    listed = json.loads(succeed(tool("nbdinfo"), "--list", "--json", uri))["exports"]
    return sorted(each["export-name"] for each in listed)


def test_files_of_a_host_are_for_their_owner(tls: TlsSite) -> None:
    assert tls.first.directory.stat().st_mode & 0o777 == 0o700
    assert tls.first.key.stat().st_mode & 0o777 == 0o600
    again = tls.site.run("site", "cert", "issue", "first", "--to", str(tls.first.directory))
    assert again.returncode != 0
    assert "ca-cert.pem exists already" in again.stderr


def test_nbdinfo(tls: TlsSite, tool: Tool) -> None:
    said = json.loads(succeed(tool("nbdinfo"), "--json", tls.uri("g/v")))
    assert said["TLS"] is True
    assert said["exports"][0]["export-size"] == 64 * MIB
    assert exports_of(tool, tls.uri("g/v").replace("/g/v?", "/?")) == ["g/v", "g/w"]


def test_nbdcopy_there_and_back_over_several_connections(tls: TlsSite, tool: Tool, scratch: Path) -> None:
    image = patchy_image(scratch / "image", 64 * MIB, seed=7)
    succeed(tool("nbdcopy"), "--connections=4", "--flush", image, tls.uri("g/v"))
    same_content(image, tls.site.uri("g/v"))
    succeed(tool("nbdcopy"), "--connections=4", "--requests=64", tls.uri("g/v"), scratch / "back")
    assert (scratch / "back").read_bytes() == image.read_bytes()


def test_large_and_odd_requests(tls: TlsSite, tool: Tool) -> None:
    script(
        tls.uri("g/v"),
        """
        import os
        big = os.urandom(33 << 20)
        h.pwrite(big[:32 << 20], 512)
        assert h.pread(32 << 20, 512) == big[:32 << 20]
        parts = []
        for at in range(0, 3 << 20, 7168):
            buf = nbd.Buffer.from_bytearray(bytearray(big[at:at + 7168]))
            parts.append((buf, h.aio_pwrite(buf, at)))
        while h.aio_in_flight():
            h.poll(-1)
        for _, cookie in parts:
            assert h.aio_command_completed(cookie)
        h.flush()
        assert h.pread(3 << 20, 0) == big[:3 << 20]
        """,
    )


def qemu(files: HostFiles, port: int, export: str) -> list[str]:
    """The words that name an export to qemu-img."""
    options = f"driver=nbd,host=127.0.0.1,port={port},export={export},tls-creds=tls0"
    secrets = f"tls-creds-x509,id=tls0,endpoint=client,verify-peer=yes,dir={files.directory}"
    return ["--object", secrets, "--image-opts", options]


def test_qemu_img(tls: TlsSite, tool: Tool, scratch: Path) -> None:
    said = json.loads(succeed(tool("qemu-img"), "info", "--output=json", *qemu(tls.first, tls.port, "g/w")))
    assert said["virtual-size"] == 8 * MIB
    image = patchy_image(scratch / "image", 8 * MIB, seed=8)
    succeed(tool("nbdcopy"), image, tls.uri("g/w"))
    out = scratch / "out"
    succeed(tool("qemu-img"), "convert", "-O", "raw", *qemu(tls.first, tls.port, "g/w"), out)
    assert out.read_bytes() == image.read_bytes()


def test_who_may_not_come(tls: TlsSite, tool: Tool, scratch: Path) -> None:
    nbdinfo = tool("nbdinfo")
    clear = f"nbd://127.0.0.1:{tls.port}/g/v"
    assert "in the clear" in tls.refused_once((nbdinfo, clear))
    nobody = tls.first.without_certificate(scratch / "nobody")
    assert "did not return a certificate" in tls.refused_once((nbdinfo, tls.uri("g/v", nobody)))
    stranger = TestAuthority(scratch / "other").host("first", scratch / "stranger")
    stranger.ca.write_bytes(tls.first.ca.read_bytes())
    assert "unable to get local issuer" in tls.refused_once((nbdinfo, tls.uri("g/v", stranger)))
    authority = TestAuthority.of_site(tls.site.directory)
    old = authority.host("first", scratch / "old", age_days=30, days=10)
    assert "expired" in tls.refused_once((nbdinfo, tls.uri("g/v", old)))
    assert "expired" in tls.refused_once((tool("qemu-img"), "info", *qemu_unchecked(old, tls.port)))


def qemu_unchecked(files: HostFiles, port: int) -> list[str]:
    """QEMU looks at its own certificate before it connects, and would not with one that has ended."""
    words = qemu(files, port, "g/v")
    return [word.replace("verify-peer=yes", "verify-peer=yes,sanity-check=no") for word in words]


def test_a_server_that_a_client_does_not_trust(tls: TlsSite, tool: Tool, scratch: Path) -> None:
    """The client's check, with what the site's server shows: another authority, another name."""
    wrong = TestAuthority(scratch / "other").host("x", scratch / "wrong")
    done = call(tool("nbdinfo"), tls.uri("g/v", wrong))
    assert done.returncode != 0
    assert "certificate" in done.stderr
    other_name = tls.uri("g/v").replace("127.0.0.1", "127.0.0.2")
    assert call(tool("nbdinfo"), other_name).returncode != 0


def test_an_earlier_tls_and_slipped_in_bytes(tls: TlsSite) -> None:
    before = len(tls.refusals())
    with pytest.raises((ssl.SSLError, OSError)):
        over_tls(tls.port, tls.first.context(newest=ssl.TLSVersion.TLSv1_2)).recv(1)
    with greeted(tls.port) as connection:
        connection.sendall(STARTTLS + encode_option(Option.LIST))
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert tls.refused_since(before, 2) == [
        "TLS: unsupported protocol",
        "16 bytes came in the clear behind STARTTLS",
    ]


def test_each_host_finds_what_it_may(tls: TlsSite, tool: Tool) -> None:
    second = tls.issue("second")
    site = tls.site
    try:
        site.farshore("volume", "allow", "g/v", "first", "rw")
        site.farshore("volume", "allow", "g/v", "second", "ro")
        site.farshore("volume", "allow", "g/w", "cert:first", "rw")
        every = tls.uri("g/v").replace("/g/v?", "/?")
        assert exports_of(tool, every) == ["g/v", "g/w"]
        assert exports_of(tool, every.replace("/first", "/second")) == ["g/v"]
        assert call(tool("nbdinfo"), tls.uri("g/w", second)).returncode != 0
        refused = [each for each in site.log() if each["event"] == "nbd.not_allowed"]
        assert {each["error"] for each in refused} == {"cert:second is not on the list of g/w"}
        (seen,) = json.loads(succeed(tool("nbdinfo"), "--json", tls.uri("g/v", second)))["exports"]
        assert seen["is_read_only"] is True
        script(tls.uri("g/v", second), _WRITE_REFUSED)
        shown: Any = site.json("volume", "access", "g/v")
        assert [(each["host"], each["right"]) for each in shown["entries"]] == [
            ("cert:first", "rw"),
            ("cert:second", "ro"),
        ]
        # The daemon's user may always, on the unix socket.
        assert exports_of(tool, f"nbd+unix:///?socket={site.nbd_socket}") == ["g/v", "g/w"]
    finally:
        for volume in ("g/v", "g/w"):
            site.farshore("volume", "disallow", volume, "--all", "--force")


_WRITE_REFUSED = """
h.set_strict_mode(0)
try:
    h.pwrite(b'x' * 512, 0)
except nbd.Error as error:
    assert error.errno == 'EPERM', error
else:
    raise AssertionError('a write was taken')
assert len(h.pread(512, 0)) == 512
h.flush()
"""


def test_a_revoked_host_loses_its_connections(tls: TlsSite, tool: Tool) -> None:
    third, environment = tls.issue("third"), tls.site.environment()
    words = [*tls.site.command(), "site", "cert", "revoke", "third", "--site", str(tls.site.directory)]
    said = script(
        tls.uri("g/v", third),
        f"""
        import subprocess
        assert len(h.pread(512, 0)) == 512
        print(subprocess.run({words}, check=True, capture_output=True, text=True, env={environment}).stdout)
        try:
            h.pread(512, 0)
        except nbd.Error:
            print('lost')
        """,
    )
    assert "1 refused from now on" in said
    assert "lost" in said
    assert "of third is revoked" in tls.refused_once((tool("nbdinfo"), tls.uri("g/v", third)))
    assert call(tool("nbdinfo"), tls.uri("g/v")).returncode == 0
    assert call(tool("nbdinfo"), tls.uri("g/v", tls.issue("third-again"))).returncode == 0
