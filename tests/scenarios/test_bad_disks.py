"""File systems without inodes, that turn read-only, that cannot sync, that go away: each is named, hosts get
errors and read on, and nothing ends in a traceback."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from console.demo.host import Host, HostRefused
from protocol.errors import ExitCode
from tests.scenarios.test_no_space import MIB, disk_of, small_site
from tests.support.clients import succeed
from tests.support.sites import Site, short_directory

DATA = b"x" * 65536
PATIENCE_S = 30.0


def refused(host: Host) -> int:
    """One write; NBD's error, 0 if it was taken."""
    try:
        host.write(0, DATA)
    except HostRefused as refusal:
        return refusal.error
    return 0


def fill(directory: Path) -> None:
    """Take every inode."""
    for number in count():
        (directory / str(number)).touch()


def write_until(host: Host, error: int) -> None:
    """Until that is the answer: of what the daemon finds out by writing, or looks at now and then."""
    deadline = time.monotonic() + PATIENCE_S
    while refused(host) != error:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def site(tool: Callable[[str], str]) -> Iterator[Site]:
    """On an ext4 of its own, with the volume g/v."""
    with disk_of(40 * MIB, tool) as mount:
        site = small_site(mount)
        try:
            site.init()
            site.start()
            site.create_volume("g/v", "1M")
            yield site
        finally:
            site.kill()


@pytest.mark.slow
def test_no_inodes_and_then_a_read_only_file_system(site: Site, tool: Callable[[str], str]) -> None:
    mount = site.directory.parent
    files = mount / "files"
    files.mkdir()
    with pytest.raises(OSError, match="No space left"):
        fill(files)
    with Host(site.nbd_socket, "g/v") as host:
        write_until(host, errno.ENOSPC)
        assert "no inodes left" in site.farshore("status")
        said = site.farshore("volume", "create", "h/v", "--size", "1M", exit_code=ExitCode.FAILED)
        assert "no inodes left" in said
        assert "df -i" in said
        shutil.rmtree(files)
        write_until(host, 0)
        host.flush()
        assert "inodes" not in site.farshore("status")
        succeed(tool("mount"), "-o", "remount,abort", mount)
        assert refused(host) == errno.EPERM  # what the NBD protocol has for EROFS
        assert host.read(0, len(DATA)) == DATA
        assert "read-only" in site.farshore("status")
        assert "read-only" in site.farshore("backup", "create", "g", exit_code=ExitCode.FAILED).lower()
    assert site.stop() == 0
    assert "Traceback" not in site.log_path.read_text() + site.stderr_path.read_text()
    assert "Read-only" in site.refuses_to_run(ExitCode.FAILED)


@pytest.mark.slow
def test_a_disk_that_cannot_sync_and_a_directory_that_goes(tool: Callable[[str], str]) -> None:
    """Files that were removed under the daemon can still be written, and would be gone with it: hosts are
    told within seconds, as by any group that stops."""
    parent = short_directory()
    site = Site(parent / "a", "a")
    try:
        site.init()
        site.start()
        site.create_volume("g/v", "1M")
        with Host(site.nbd_socket, "g/v") as host:
            assert refused(host) == 0
            shutil.move(site.directory, parent / "away")
            with pytest.raises(ConnectionError):
                write_until(host, errno.ENODEV)
        assert site.stop() == 0
        assert "the directory has gone" in site.log_path.read_text()
        shutil.move(parent / "away", site.directory)
        fault = "inject=fsync,fdatasync:error=EIO"
        words = ("-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", fault)
        site.start(tool("strace"), *words, wait=False)
        assert site.process is not None
        assert site.process.wait(2 * PATIENCE_S) == ExitCode.FAILED
        said = site.stderr_path.read_text()
        assert f"{site.directory}: cannot be made durable: Input/output error" in said
        assert "dmesg" in said
        assert "Traceback" not in said + site.log_path.read_text()
    finally:
        site.kill()
        shutil.rmtree(parent, ignore_errors=True)
