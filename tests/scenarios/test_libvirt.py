"""The recipes of docs/operations.md for libvirt's hosts, run as they stand there (C48).

libvirtd runs for `nobody`, as the user that QEMU has in place of `libvirt-qemu`: a group lets it to the
hosts' socket. QEMU emulates, as there may be no KVM.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from console.demo.host import Host
from tests.conftest import missing
from tests.support.boot_sector import GREETING, boot_sector
from tests.support.sites import ROOT, Site

USER, GROUP = "nobody", "nogroup"
PATIENCE_S = 120
Tool = Callable[[str], str]


def recipe(name: str) -> str:
    """The commands of the page that make a machine, without prompts."""
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    section = page[page.index("## Hosts of libvirt") :]
    (block,) = [each for each in re.findall(r"```\n(.*?)```", section, re.DOTALL) if f">{name}.xml" in each]
    return re.sub(r"^\$ ", "", block, flags=re.MULTILINE)


class Libvirt:
    """libvirtd of that user, and the directory that recipes are run in."""

    def __init__(self, site: Site, place: Path) -> None:
        self.site, self.place = site, place
        self.programs, self.home = place / "bin", place / "home"
        for each in (self.programs, self.home, self.home / "run"):
            each.mkdir()
        for each in (self.home, self.home / "run"):
            shutil.chown(each, USER, GROUP)
        self.as_user = [
            *("setpriv", "--reuid", USER, "--regid", GROUP, "--clear-groups", "env", "-i"),
            *(f"PATH={os.environ['PATH']}:/usr/sbin", f"HOME={self.home}"),
            f"XDG_RUNTIME_DIR={self.home / 'run'}",
        ]
        farshore = " ".join([*site.command(), '"$@"', "--site", str(site.directory)])
        self._program("farshore", farshore)
        self._program("virsh", " ".join([*self.as_user, "virsh", "-q", "-c", "qemu:///session", '"$@"']))
        self._daemon = subprocess.Popen(
            [*self.as_user, "libvirtd"], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=(place / "libvirtd.log").open("wb"),
        )  # fmt: skip
        self.until(lambda: self.sh("virsh list").returncode == 0)

    def _program(self, name: str, line: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\nexec {line}\n")
        (self.programs / name).chmod(0o755)

    def sh(self, text: str) -> subprocess.CompletedProcess[str]:
        environment = self.site.environment() | {"PATH": f"{self.programs}:{os.environ['PATH']}"}
        return subprocess.run(
            ["sh", "-eu"], input=text, cwd=self.place, env=environment, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def follow(self, name: str) -> str:
        """The recipe, on this machine; what it says."""
        text = (
            recipe(name)
            .replace("type='kvm'", "type='qemu'")
            .replace("<memory unit='GiB'>2", "<memory unit='MiB'>64")
        )
        serial = f"<serial type='file'><source path='{self.serial(name)}'/></serial>"
        assert text.count("<serial type='pty'/>") == 1
        done = self.sh(text.replace("<serial type='pty'/>", serial))
        assert done.returncode == 0, done.stdout + done.stderr + (self.place / "libvirtd.log").read_text()
        return done.stderr

    def serial(self, name: str) -> Path:
        return self.home / f"{name}.serial"

    def said(self, name: str) -> bytes:
        """What the machine has printed."""
        return self.serial(name).read_bytes() if self.serial(name).exists() else b""

    def until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            assert time.monotonic() < deadline, (self.place / "libvirtd.log").read_text()
            time.sleep(0.2)

    def close(self) -> None:
        for name in self.sh("virsh list --name").stdout.split():
            self.sh(f"virsh destroy {name}")
        self._daemon.terminate()
        self._daemon.wait(30)


@pytest.fixture
def libvirt(site: Site, tool: Tool) -> Iterator[Libvirt]:
    for program in ("virsh", "virt-xml-validate", "qemu-system-x86_64", "setpriv"):
        tool(program)
    if os.geteuid() != 0 or shutil.which("libvirtd", path="/usr/sbin") is None:
        missing("libvirtd, and root to run it as another user")
    place = site.directory.parent / "libvirt"
    place.mkdir(mode=0o755)
    site.directory.parent.chmod(0o755)
    assert site.stop() == 0
    with (site.directory / "site.toml").open("a") as config:
        config.write(
            f'nbd = ["unix:{place}/nbd.sock", "unix:{site.nbd_socket}"]\nnbd_socket_group = "{GROUP}"\n'
        )
    site.start()
    for volume, data in (("vm1/root", boot_sector()), ("vm1/data", b"data".ljust(512, b"\0"))):
        site.create_volume(volume, "1M")
        with Host(site.nbd_socket, volume) as host:
            host.write(0, data.ljust(4096, b"\0"))
    found = Libvirt(site, place)
    try:
        yield found
    finally:
        found.close()


@pytest.mark.timeout(900)
def test_c48_two_volumes_of_a_machine_that_libvirt_boots(libvirt: Libvirt) -> None:
    """Valid by libvirt's schema, with devices of their own, over a socket that its user reaches."""
    said = libvirt.follow("vm1")
    assert "a restart of the site's daemon ends the disk: --reconnect" in said
    assert "may not connect" not in said
    shown = ElementTree.fromstring(libvirt.sh("virsh dumpxml vm1").stdout)
    disks = [
        (disk.find("source").get("name"), disk.find("target").get("dev"))  # type: ignore[union-attr]
        for disk in shown.iter("disk")
    ]
    assert disks == [("vm1/root", "vda"), ("vm1/data", "vdb")]
    libvirt.until(lambda: GREETING in libvirt.said("vm1") and b"..." in libvirt.said("vm1"))
    for volume, target in (("vm1/root", "vda"), ("vm1/data", "vdb")):
        alone = libvirt.site.farshore("volume", "uri", volume, "--format", "libvirt")
        assert f"<target dev='{target}'" in alone.replace('"', "'")


@pytest.mark.timeout(900)
def test_c48_a_disk_outlives_a_restart_of_the_site(libvirt: Libvirt) -> None:
    libvirt.follow("vm2")
    libvirt.until(lambda: b"..." in libvirt.said("vm2"))
    libvirt.site.kill()
    libvirt.site.start()
    before = len(libvirt.said("vm2"))
    libvirt.until(lambda: len(libvirt.said("vm2")) > before + 3)
    assert b"E" not in libvirt.said("vm2").partition(GREETING)[2]


def test_c48_reconnect_is_what_a_later_libvirt_takes(libvirt: Libvirt) -> None:
    """libvirt 9.0 refuses the element, so it is not there unless asked for; one that has it in its schema
    takes it where it is put."""
    words = "volume uri vm1/root --format libvirt"
    frame = (
        "cat >d.xml <<END\n<domain type='qemu'><name>d</name><memory>65536</memory><os><type>hvm</type></os>"
        f"<devices>$(farshore {words} %s)</devices></domain>\nEND\nvirt-xml-validate d.xml domain"
    )
    assert libvirt.sh(frame % "").returncode == 0
    schema = Path("/usr/share/libvirt/schemas/domaincommon.rng").read_text(encoding="utf-8")
    of_nbd = schema.partition('<define name="diskSourceNetworkProtocolNBD">')[2].partition("</define>")[0]
    assert (libvirt.sh(frame % "--reconnect").returncode == 0) == ('name="reconnect"' in of_nbd)
