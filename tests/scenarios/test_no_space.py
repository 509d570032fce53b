"""A full disk, and a journal at its limit: hosts get ENOSPC, nothing acknowledged is lost, service resumes.

The disk is real: ext4 of 64 MiB on a loop device, with a ballast file to take away.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from console.demo.host import Host, HostRefused
from tests.conftest import missing
from tests.support.clients import call, succeed
from tests.support.sites import Site, introduce, short_directory

MIB = 1 << 20
DISK_BYTES = 64 * MIB
BALLAST_BYTES = 20 * MIB
VOLUME_BYTES = 128 * MIB
RESUME_TIMEOUT_S = 30.0


@contextmanager
def disk_of(size_bytes: int, tool: Callable[[str], str]) -> Iterator[Path]:
    """A mounted ext4 of that size; unmounted and detached whatever happens."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        missing("a small disk needs root and loop devices")
    parent = short_directory()
    image, mount = parent / "disk.img", parent / "m"
    mount.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, parent, ignore_errors=True)
        with image.open("wb") as file:
            file.truncate(size_bytes)
        succeed(tool("mkfs.ext4"), "-q", "-F", "-m", "0", image)
        device = succeed(tool("losetup"), "--find", "--show", image).strip()
        stack.callback(call, tool("losetup"), "--detach", device)
        succeed("timeout", "60", "mount", device, mount)
        stack.callback(call, "timeout", "60", "umount", "--lazy", mount)
        yield mount


@pytest.fixture
def small_disk(tool: Callable[[str], str]) -> Iterator[Path]:
    with disk_of(DISK_BYTES, tool) as mount:
        yield mount


def small_site(mount: Path, name: str = "a") -> Site:
    """A site whose data directory lies on the small disk; its logs do not."""
    site = Site(mount / name, name)
    site.log_path = mount.parent / f"{name}.log"
    site.stderr_path = mount.parent / f"{name}.stderr"
    return site


@dataclass
class Account:
    """What was acknowledged: the volume must be equal to `image` but where `open` names a refused write."""

    image: bytearray
    open: list[tuple[int, int]]

    def check(self, host: Host) -> None:
        """Every acknowledged byte, and refused writes whole blocks of either what was or what was sent."""
        for at in range(0, len(self.image), MIB):
            found = bytearray(host.read(at, MIB))
            for offset, length in self.open:
                for block in range(max(offset, at), min(offset + length, at + MIB), 4096):
                    place = slice(block - at, block - at + 4096)
                    found[place] = self.image[block : block + 4096]
            assert found == self.image[at : at + MIB], f"lost between {at} and {at + MIB}"


def taken(host: Host, offset: int, data: bytes) -> bool:
    """Write; False if it was refused for lack of space, the only error that may come."""
    try:
        host.write(offset, data)
    except HostRefused as refusal:
        if refusal.error != errno.ENOSPC:
            raise
        return False
    return True


def write_until_full(site: Site, account: Account, rng: random.Random, limit_bytes: int) -> int:
    """Random writes of 4 to 256 KiB until one is refused for lack of space; the bytes acknowledged."""
    written_bytes = 0
    with Host(site.nbd_socket, "g/v") as host:
        while written_bytes < limit_bytes:
            length = rng.choice((4096, 65536, 262144))
            offset = rng.randrange(0, (VOLUME_BYTES - length) // 4096) * 4096
            data = rng.randbytes(length)
            if not taken(host, offset, data):
                account.open.append((offset, length))
                return written_bytes
            account.image[offset : offset + length] = data
            written_bytes += length
    raise AssertionError(f"{written_bytes} bytes went onto a disk of {DISK_BYTES}")


def wait_until_writable(site: Site) -> float:
    """Write to the last block until it is taken; the seconds that it took. ENOSPC is the only error."""
    began = time.monotonic()
    with Host(site.nbd_socket, "g/v") as host:
        while not taken(host, VOLUME_BYTES - 4096, bytes(4096)):
            assert time.monotonic() - began < RESUME_TIMEOUT_S, "writes are still refused"
            time.sleep(0.1)
    return time.monotonic() - began


def check_account(site: Site, account: Account) -> None:
    """Read everything back."""
    with Host(site.nbd_socket, "g/v") as host:
        account.check(host)


@pytest.mark.slow
def test_a_full_disk(small_disk: Path) -> None:
    rng = random.Random(11)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
    account = Account(bytearray(VOLUME_BYTES), [])
    site = small_site(small_disk)
    try:
        site.init()
        site.start()
        site.create_volume("g/v", "128M")
        written_bytes = write_until_full(site, account, rng, DISK_BYTES)
        assert written_bytes > 8 * MIB
        # Full: reads go on, flushes hold, commands that write say why they cannot.
        check_account(site, account)
        with Host(site.nbd_socket, "g/v") as host:
            host.flush()
            while taken(host, 0, bytes(MIB)):
                account.image[:MIB] = bytes(MIB)
            account.open.append((0, MIB))
        assert site.json("status")["groups"][0]["state"] == "simplex"

        # Killed and started on a full disk: what was acknowledged is there.
        site.kill()
        site.start()
        check_account(site, account)

        # Space returns, and with it service, without a restart.
        ballast.unlink()
        assert wait_until_writable(site) < RESUME_TIMEOUT_S
        account.image[VOLUME_BYTES - 4096 :] = bytes(4096)
        with Host(site.nbd_socket, "g/v") as host:
            for offset in (0, 5 * MIB):
                data = rng.randbytes(262144)
                host.write(offset, data)
                account.image[offset : offset + len(data)] = data
            host.flush()
        check_account(site, account)
        assert site.json("verify", "g", "--deep")["ok"]
        assert site.stop() == 0
        site.start()
        check_account(site, account)
        assert site.stop() == 0
        site.check_log()
    finally:
        site.kill()


@pytest.mark.slow
def test_a_full_disk_at_the_secondary(small_disk: Path) -> None:
    """The mirror stops and says so; hosts at the primary notice nothing; it goes on once there is space."""
    rng = random.Random(12)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
    b = small_site(small_disk, "b")
    a = Site(small_disk.parent / "a", "a")
    try:
        for site in (a, b):
            site.init()
            site.start()
        introduce(a, b)
        a.create_volume("g/v", "128M")
        a.farshore("pair", "create", "g", "--with", "b")
        a.farshore("wait", "g", "--state", "paired", "--timeout", "30")
        image = bytearray(VOLUME_BYTES)
        with Host(a.nbd_socket, "g/v") as host:
            for at in range(0, 40 * MIB, MIB):
                image[at : at + MIB] = rng.randbytes(MIB)
                host.write(at, bytes(image[at : at + MIB]))
            host.flush()
        a.farshore("wait", "g", "--state", "suspended", "--timeout", "30")
        assert "cannot store the journal" in a.json("pair", "show", "g")["reason"]
        ballast.unlink()
        a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
        reached = a.json("wait", "g", "--timeout", "60")
        with Host(b.nbd_socket, f"g/v@{reached['position']}") as host:
            for at in range(0, VOLUME_BYTES, MIB):
                assert host.read(at, MIB) == image[at : at + MIB]
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()
    finally:
        a.kill()
        b.kill()


@pytest.mark.slow
def test_c54_small_file_systems_reclaim_for_ever(tool: Callable[[str], str]) -> None:
    """200 MiB at each site hold a volume of 8 MiB however much is written to it, by way of small segments."""
    rng = random.Random(13)
    image = bytearray(8 * MIB)
    with disk_of(200 * MIB, tool) as one, disk_of(200 * MIB, tool) as other:
        a, b = small_site(one), small_site(other, "b")
        try:
            for site in (a, b):
                site.init()
                site.start()
            introduce(a, b)
            a.create_volume("g/v", "8M")
            a.farshore("pair", "create", "g", "--with", "b")
            a.farshore("wait", "g", "--state", "paired", "--timeout", "30")
            with Host(a.nbd_socket, "g/v") as host:
                for at in [*range(0, 8 * MIB, MIB)] * 32:
                    image[at : at + MIB] = rng.randbytes(MIB)
                    host.write(at, bytes(image[at : at + MIB]))
                host.flush()
            a.farshore("wait", "g", "--state", "paired", "--timeout", "30")
            reached = a.json("wait", "g", "--timeout", "60")
            with Host(b.nbd_socket, f"g/v@{reached['position']}") as host:
                assert host.read(0, 8 * MIB) == image
            for site in (a, b):
                assert site.stop() == 0
                site.check_log()
        finally:
            a.kill()
            b.kill()
