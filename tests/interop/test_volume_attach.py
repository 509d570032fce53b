"""`farshore volume attach`, `detach` and `mkfs`: a new volume used at once, by this machine's kernel."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from console.demo.host import Host
from console.mounts.devices import attached_devices
from console.mounts.mounting import Mount
from protocol.errors import ExitCode
from tests.support.clients import call, succeed
from tests.support.mounting import require_mounting
from tests.support.pairs import wait_until
from tests.support.sites import Site

MIB = 1 << 20


@pytest.fixture(autouse=True)
def machine(tool: Callable[[str], str]) -> Iterator[None]:
    """What it takes; what a failed test leaves is taken away."""
    require_mounting()
    for name in ("nbdfuse", "losetup", "mkfs.ext4", "mkfs.xfs", "findmnt"):
        tool(name)
    before = {each.directory for each in attached_devices()}
    yield
    for left in attached_devices():
        # Those of other tests, which run at the same time, are of sites that are there.
        if left.directory not in before and not Path(left.site).exists():
            left.undo(lambda _site, _clone: None)


def devices_of(*sites: Site) -> list[Mount]:
    """Of these sites: a drill of another test has some too."""
    return [each for each in attached_devices() if each.site in {str(site.directory) for site in sites}]


def listed_of(site: Site) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = site.json("volume", "attach", "--list")["devices"]
    return [row for row in rows if row["site"] == str(site.directory)]


def device_of(site: Site, *words: str) -> str:
    device: str = site.json("volume", "attach", *words)["device"]
    return device


@pytest.mark.parametrize(
    ("kind", "size"), [("ext4", "64M"), ("xfs", "400M"), ("vfat", "64M"), ("btrfs", "128M")]
)
def test_a_new_volume_is_used_at_once(
    site: Site, scratch: Path, tool: Callable[[str], str], kind: str, size: str
) -> None:
    tool(f"mkfs.{kind}")
    site.create_volume("g/v", size)
    site.farshore("volume", "mkfs", "g/v", "--type", kind, "--label", "DATA")
    if kind in Path("/proc/filesystems").read_text().split():
        point = scratch / "mnt"
        point.mkdir()
        site.farshore("mount", "g/v", str(point), "--writable")
        (point / "file").write_bytes(b"kept")
        site.farshore("umount", str(point))
    else:
        assert kind not in ("ext4", "xfs"), "the kernel has not even this one"
    device = device_of(site, "g/v")
    assert succeed("blkid", "-o", "value", "-s", "TYPE", device).strip() == kind
    site.farshore("volume", "detach", device)
    assert listed_of(site) == []
    # It holds something now.
    site.farshore("volume", "mkfs", "g/v", exit_code=ExitCode.UNSAFE)
    site.farshore("volume", "mkfs", "g/v", "--confirm", "g/v")


def test_a_device_is_what_hosts_see(site: Site) -> None:
    site.create_volume("g/v", "16M")
    device = device_of(site, "g/v", "--writable")
    site.farshore("volume", "attach", "g/v", exit_code=ExitCode.BUSY)
    succeed("dd", "if=/dev/urandom", f"of={device}", "bs=1M", "count=4", "seek=3", "oflag=direct")
    written = subprocess.run(
        ["dd", f"if={device}", "bs=1M", "count=16"], capture_output=True, check=True
    ).stdout
    listed = listed_of(site)
    assert [(each["export"], each["device"], each["failed"]) for each in listed] == [("g/v", device, False)]
    site.farshore("volume", "detach", "g/v")
    wait_until(lambda: not site.json("volume", "show", "g/v")["connections"], 10)
    with Host(site.nbd_socket, "g/v") as host:
        assert host.read(0, 16 * MIB) == written
        site.farshore("volume", "attach", "g/v", "--writable", exit_code=ExitCode.BUSY)
    site.farshore("backup", "create", "g", "--label", "then")
    site.farshore("volume", "attach", "g/v@then", "--writable", exit_code=ExitCode.WRONG_STATE)
    device = device_of(site, "g/v@then")
    assert call("dd", "if=/dev/zero", f"of={device}", "bs=4k", "count=1", "oflag=direct").returncode != 0
    site.farshore("volume", "detach", "g/v@then")


def test_what_is_mounted_stays(site: Site, scratch: Path) -> None:
    site.create_volume("g/v", "64M")
    site.farshore("volume", "mkfs", "g/v")
    device = device_of(site, "g/v", "--writable")
    point = scratch / "mnt"
    point.mkdir()
    succeed("mount", device, point)
    try:
        site.farshore("volume", "detach", device, exit_code=ExitCode.BUSY)
        (point / "file").write_text("still there")
    finally:
        succeed("umount", point)
    site.farshore("volume", "detach", device)
    site.farshore("volume", "detach", "g/v", exit_code=ExitCode.NOT_FOUND)


def test_a_connection_that_died_is_said_and_cleaned_up(site: Site) -> None:
    site.create_volume("g/v", "16M")
    device_of(site, "g/v", "--writable")
    (made,) = devices_of(site)
    os.kill(int((made.directory / "attached" / "pid").read_text()), signal.SIGKILL)
    wait_until(lambda: bool(listed_of(site)[0]["failed"]), 10)
    site.farshore("volume", "detach", "g/v")
    assert devices_of(site) == []


def test_volumes_of_one_name_at_two_sites(pair: tuple[Site, Site]) -> None:
    """Both on this machine: each is its site's."""
    a, b = pair
    for site, letter in ((a, b"a"), (b, b"b")):
        site.create_volume("g/v", "8M")
        with Host(site.nbd_socket, "g/v") as host:
            host.write(0, letter * 4096)
            host.flush()
    devices = [device_of(site, "g/v") for site in (a, b)]
    first = [succeed("head", "-c", "1", device) for device in devices]
    assert first == ["a", "b"]
    b.farshore("volume", "detach", "g/v")
    assert [each.device for each in devices_of(a, b)] == [devices[0]]
    a.farshore("volume", "detach", "g/v")
