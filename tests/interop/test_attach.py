"""A volume as a file through nbdfuse: read, written, taken away, and cleaned up after a kill -9.

Real sites, real nbdfuse; needs FUSE, but neither root nor loop devices.
"""

from __future__ import annotations

import os
import platform
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest

from console.mounts.attach import Attached, attach, is_mounted, release
from protocol.errors import Busy, FarshoreError
from tests.conftest import missing
from tests.support.clients import MIB
from tests.support.sites import Site, running_sites

CONTENT = b"farshore" * 512


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One site for the whole file; at the end it must stop cleanly and have logged no unexpected error."""
    with running_sites("a") as (one,):
        yield one
        assert one.stop() == 0
        one.check_log()


@pytest.fixture(scope="module")
def uri(site: Site, tool: Callable[[str], str]) -> str:
    """Of a new volume of 16 MiB."""
    tool("nbdfuse"), tool("fusermount3")
    if not Path("/dev/fuse").exists():
        missing("nbdfuse needs /dev/fuse")
    return site.create_volume("g/v", "16M")


def nbdfuse_of(attached: Attached) -> int:
    """Its process id."""
    return int((attached.directory / "pid").read_text())


def test_what_is_written_to_the_file_is_in_the_volume(site: Site, uri: str) -> None:
    with attach(uri, read_only=False) as attached:
        assert attached.path.stat().st_size == 16 * MIB
        with attached.path.open("r+b") as file:
            file.seek(MIB)
            file.write(CONTENT)
            file.flush()
            os.fsync(file.fileno())
        cut = site.json("backup", "create", "g", "--label", "written")["label"]
    with attach(site.uri(f"g/v@{cut}"), read_only=True) as attached:
        with attached.path.open("rb") as file:
            file.seek(MIB)
            assert file.read(len(CONTENT)) == CONTENT
        with pytest.raises(OSError):
            attached.path.open("r+b")


def test_nbdfuse_is_made_ready_for_lack_of_memory(uri: str) -> None:
    """As far as this kernel allows; what it does not is said."""
    with attach(uri, read_only=True) as attached:
        status = Path(f"/proc/{nbdfuse_of(attached)}/status").read_text()
        locked = re.search(r"^VmLck:\s+(\d+) kB", status, re.MULTILINE)
        assert locked is not None
        if os.geteuid() == 0 and platform.machine() == "x86_64" and "memory" not in attached.warning:
            assert int(locked[1]) > 0
        # PF_MEMALLOC_NOIO (linux/sched.h), which PR_SET_IO_FLUSHER sets.
        fields = Path(f"/proc/{nbdfuse_of(attached)}/stat").read_text().rpartition(")")[2].split()
        marked = bool(int(fields[6]) & 0x00080000)
        assert marked is ("not marked" not in attached.warning)


def test_closing_leaves_nothing_and_can_be_repeated(uri: str) -> None:
    attached = attach(uri, read_only=True)
    process = nbdfuse_of(attached)
    with attached.path.open("rb"), pytest.raises(Busy, match="cannot be unmounted"):
        attached.close()
    attached.close()
    attached.close()
    assert not attached.directory.exists()
    assert not Path(f"/proc/{process}").exists()


def test_what_lets_the_file_go_a_moment_later_is_waited_for(uri: str) -> None:
    """As a loop device does, when another program closes it last."""
    attached = attach(uri, read_only=True)
    held = attached.path.open("rb")
    closing = Timer(0.3, held.close)
    closing.start()
    attached.close()
    closing.join()
    assert not attached.directory.exists()


def test_a_killed_nbdfuse_is_cleaned_up(uri: str) -> None:
    attached = attach(uri, read_only=True)
    os.kill(nbdfuse_of(attached), signal.SIGKILL)
    os.waitpid(nbdfuse_of(attached), 0)
    with pytest.raises(OSError, match="not connected"):
        attached.path.stat()
    release(attached.directory)
    assert not attached.directory.exists()


def test_an_export_that_is_not_there_says_what_nbdfuse_said(uri: str, scratch: Path) -> None:
    directory = scratch / "attached"
    with pytest.raises(FarshoreError, match=r"nbdfuse ended with 1: .*nbd_connect"):
        attach(uri.replace("g/v", "g/w"), read_only=True, directory=directory)
    assert not directory.exists()
    assert not is_mounted(directory / "files")
