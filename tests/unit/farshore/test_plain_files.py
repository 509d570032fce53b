"""What stands in the place of a file is not read as one, nor waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from console.commands.operator import _public_key
from console.mounts import check_hooks
from console.sites import _keys
from console.sites_file import SiteEntry, read_sites
from farshore.plain_files import read_plain, require_plain
from protocol.errors import FarshoreError


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


KINDS: list[Callable[[Path], object]] = [
    os.mkfifo,
    Path.mkdir,
    a_socket,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("/dev/tty"),
]


@pytest.fixture(params=KINDS, ids=["pipe", "directory", "socket", "zeroes", "terminal"])
def strange(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "file"
    request.param(path)
    return path


def test_only_files_are_read(strange: Path) -> None:
    for read in (read_plain, require_plain):
        with pytest.raises(OSError, match="file"):
            read(strange)


def test_a_file_is_read_up_to_what_it_may_have(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    require_plain(path)
    assert read_plain(path, 5) == b"12345"
    with pytest.raises(OSError, match="too large"):
        read_plain(path, 4)


def test_the_command_waits_for_none_either(strange: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of operators, the names of sites, checks of drills."""
    with pytest.raises(FarshoreError):
        _public_key(strange)
    with pytest.raises(FarshoreError):
        _keys("lon", SiteEntry(operator_key_file=str(strange), server_key="k" * 40))
    with pytest.raises(FarshoreError):
        read_sites(strange)
    monkeypatch.setattr(check_hooks, "OWN", strange.parent)
    with pytest.raises(FarshoreError):
        check_hooks.find_hook(strange.name)
    assert strange.name not in [hook.name for hook in check_hooks.hooks()]
