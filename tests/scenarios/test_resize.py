"""Volumes that change while hosts use them: another size, both ways, mirrored; another name."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from console.demo.host import Host, HostRefused
from protocol.errors import ExitCode
from tests.scenarios.test_host_rides_through import start_checking_host
from tests.support.pairs import same_at_the_cut
from tests.support.qemu import machine, patient_export
from tests.support.sites import Site

MIB = 1 << 20
ENOSPC, EINVAL = 28, 22


def paired(primary: Site, secondary: Site, size: str) -> None:
    primary.create_volume("g/v", size)
    primary.farshore("pair", "create", "g", "--with", secondary.name)
    primary.farshore("wait", "g", "--state", "paired", "--timeout", "30")


def sized(site: Site, export: str) -> int:
    with Host(site.nbd_socket, export) as host:
        return host.size_bytes


def test_a_life_of_sizes_at_both_sites(pair: tuple[Site, Site]) -> None:
    a, b = pair
    paired(a, b, "8M")
    with Host(a.nbd_socket, "g/v") as host:
        host.write(0, b"a" * MIB)
        host.write(7 * MIB, b"z" * MIB)
        host.flush()
        before = a.json("wait", "g")["position"]
        grown = a.json("volume", "resize", "g/v", "+8M")
        assert (grown["size_bytes"], grown["before_bytes"]) == (16 * MIB, 8 * MIB)
        # The host that was there keeps what it was told.
        with pytest.raises(HostRefused) as caught:
            host.write(8 * MIB, b"n" * 4096)
        assert caught.value.error == ENOSPC
        host.write(0, b"b" * 4096)
        with Host(a.nbd_socket, "g/v") as another:
            assert another.size_bytes == 16 * MIB
            assert another.read(8 * MIB, 8 * MIB) == bytes(8 * MIB)
            another.write(15 * MIB, b"y" * MIB)
            another.flush()
        a.kill()
    a.start()
    assert sized(a, "g/v") == 16 * MIB
    with Host(a.nbd_socket, "g/v") as host:
        a.farshore("volume", "resize", "g/v", "4M", exit_code=ExitCode.UNSAFE)
        a.farshore("volume", "resize", "g/v", "4M", "--confirm", "g/v", exit_code=ExitCode.BUSY)
        assert a.json("volume", "resize", "g/v", "4M", "--dry-run")["position"] is None
        assert sized(a, "g/v") == 16 * MIB
        shrunk = a.json("volume", "resize", "g/v", "4M", "--confirm", "g/v", "--force")
        with pytest.raises(HostRefused) as caught:
            host.read(8 * MIB, 4096)
        assert caught.value.error == EINVAL
        host.write(0, b"c" * 4096)
        host.flush()
    small = a.json("wait", "g", "--timeout", "30")["position"]
    a.farshore("volume", "resize", "g/v", "12M")
    with Host(a.nbd_socket, "g/v") as host:
        assert host.read(4 * MIB, 8 * MIB) == bytes(8 * MIB)
    a.farshore(*shlex.split(shrunk["undo"])[1:])
    a.farshore("volume", "online", "g/v")
    after = a.json("wait", "g", "--timeout", "30")["position"]
    for site in pair:
        assert sized(site, f"g/v@{before}") == 8 * MIB
        assert sized(site, f"g/v@{small}") == 4 * MIB
        with Host(site.nbd_socket, f"g/v@{after}") as host:
            assert host.size_bytes == 16 * MIB
            assert host.read(0, MIB) == b"b" * 4096 + b"a" * (MIB - 4096)
            assert host.read(7 * MIB, MIB) == b"z" * MIB
            assert host.read(15 * MIB, MIB) == b"y" * MIB
    same_at_the_cut(a, b, "g", ("v",))
    for site in pair:
        assert site.json("verify", "g", "--deep")["ok"]
        site.check_log()


def test_another_name(pair: tuple[Site, Site]) -> None:
    a, b = pair
    paired(a, b, "8M")
    with Host(a.nbd_socket, "g/v") as host:
        host.write(0, b"a" * 4096)
        host.flush()
        a.farshore("backup", "create", "g", "--label", "early")
        a.farshore("volume", "rename", "g/v", "w", exit_code=ExitCode.BUSY)
        a.farshore("volume", "rename", "g/v", "w", "--force")
        host.write(4096, b"b" * 4096)
        host.flush()
    after = a.json("wait", "g", "--timeout", "30")["position"]
    for site in pair:
        for export in (f"g/w@{after}", "g/w@early", "g/v@early"):
            assert sized(site, export) == 8 * MIB
        assert [each["volume"] for each in site.json("volume", "list", "g")["volumes"]] == ["w"]
    a.farshore("volume", "show", "g/v", exit_code=ExitCode.NOT_FOUND)
    a.farshore("volume", "create", "g/w", "--size", "1M", exit_code=ExitCode.WRONG_STATE)
    a.farshore("restore", "volume", "g/w", "--at", "early", "--confirm", "g/w")
    a.farshore("volume", "online", "g/w")
    with Host(a.nbd_socket, "g/w") as host:
        assert host.read(0, 8192) == b"a" * 4096 + bytes(4096)


def test_a_guest_sees_the_new_size(site: Site, scratch: Path, tool: Callable[[str], str]) -> None:
    """As docs/operations.md says: a reconnect, then block_resize."""
    site.create_volume("g/v", "64M")
    with machine(tool("qemu-system-x86_64"), site.nbd_socket, "g/v", scratch) as guest:
        assert guest.size_bytes == 64 * MIB
        site.farshore("volume", "resize", "g/v", "128M", "--reconnect")
        guest.io("read 0 4096")
        guest.ask("block_resize", **{"node-name": "disk", "size": 128 * MIB})
        assert guest.size_bytes == 128 * MIB
        guest.io("write -P 7 100M 4096")
        guest.io("flush")
        site.farshore("volume", "resize", "g/v", "32M", "--confirm", "g/v", "--force", "--reconnect")
        guest.io("read 0 4096")
        guest.ask("block_resize", **{"node-name": "disk", "size": 32 * MIB})
        assert guest.size_bytes == 32 * MIB
        assert sized(site, "g/v") == 32 * MIB


@pytest.mark.slow
def test_under_fio_with_a_kill_in_the_middle(
    pair: tuple[Site, Site], scratch: Path, tool: Callable[[str], str]
) -> None:
    """fio verifies what it writes to the lower part while the rest comes and goes."""
    a, b = pair
    paired(a, b, "64M")
    report = scratch / "fio.json"
    with patient_export(tool("qemu-storage-daemon"), a.nbd_socket, "g/v", scratch) as uri:
        host = start_checking_host(tool("fio"), uri, report)
        try:
            sizes: dict[str, int] = {}
            for turn, size in enumerate((96, 48, 128, 40, 64, 1024, 36, 64)):
                words = ["volume", "resize", "g/v", f"{size}M", "--confirm", "g/v", "--force"]
                position = a.json(*words, *(["--reconnect"] if turn % 3 else []))["position"]
                # The cut right behind the frame that says it.
                sizes[a.json("journal", "show", "g")["head"]["text"]] = size * MIB
                assert position is not None
                if turn in (2, 5):
                    a.kill()
                    a.start()
                    a.farshore("wait", "g", "--state", "paired", "--timeout", "60")
            assert host.poll() is None, report.with_suffix(".log").read_text()[-4000:]
            (scratch / "stop").touch()
            assert host.wait(120) == 0, report.with_suffix(".log").read_text()[-4000:]
        finally:
            host.kill()
            host.wait()
    a.json("wait", "g", "--timeout", "60")
    for site in pair:
        for cut, size in sizes.items():
            assert sized(site, f"g/v@{cut}") == size
    same_at_the_cut(a, b, "g", ("v",))
    assert (
        subprocess.run(["grep", "-c", "verify: bad", report.with_suffix(".log")], capture_output=True).stdout
        == b"0\n"
    )
