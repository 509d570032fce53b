"""fio's own verification: every block carries a checksum, is written at random, read back and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import succeed
from tests.support.sites import Site


def fio(program: str, uri: str, directory: Path, *options: str) -> str:
    """One fio job whose state files stay in `directory`."""
    common = [
        "--name=verify",
        "--ioengine=nbd",
        f"--uri={uri}",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--randrepeat=0",
        f"--aux-path={directory}",
    ]
    return succeed(program, *common, *options, timeout_s=240)


@pytest.mark.slow
def test_random_writes_depth_16(site: Site, scratch: Path, tool: Callable[[str], str]) -> None:
    uri = site.create_volume("g/v", "256M")
    options = ["--rw=randwrite", "--bs=4k", "--size=256m", "--iodepth=16", "--do_verify=1"]
    out = fio(tool("fio"), uri, scratch, *options)
    assert "err= 0" in out


def test_mixed_sizes_down_to_a_sector(site: Site, scratch: Path, tool: Callable[[str], str]) -> None:
    uri = site.create_volume("g/v", "64M")
    options = ["--rw=randwrite", "--bssplit=512/30:4k/40:64k/30", "--size=64m", "--iodepth=16"]
    out = fio(tool("fio"), uri, scratch, *options, "--do_verify=1")
    assert "err= 0" in out


def test_written_by_one_job_verified_by_another(
    site: Site, scratch: Path, tool: Callable[[str], str]
) -> None:
    """The second job knows nothing but the rules of the first: what it checks came from the volume."""
    uri = site.create_volume("g/v", "64M")
    job = ["--rw=randwrite", "--bs=4k", "--size=64m", "--iodepth=16", "--randseed=7"]
    fio(tool("fio"), uri, scratch, *job, "--do_verify=0", "--end_fsync=1")
    out = fio(tool("fio"), uri, scratch, *job, "--verify_only=1")
    assert "err= 0" in out
