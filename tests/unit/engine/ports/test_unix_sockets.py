"""What is at a socket's path before it is bound, and who may connect from then on."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.ports.unix_sockets import SocketAccess, bound_socket, remove_dead_socket
from protocol.errors import NotAllowed, NotFound


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "one.sock")


@pytest.fixture(params=[0, 0o022, 0o177, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_killed_runs_socket_is_removed(path: str) -> None:
    bound_socket(path, SocketAccess(mode=0o600)).close()
    assert remove_dead_socket(path)
    assert not os.path.lexists(path)
    assert remove_dead_socket(path), "nothing there"


def test_a_servers_socket_stays(path: str) -> None:
    with bound_socket(path, SocketAccess(mode=0o600)) as listening:
        listening.listen(0)
        assert not remove_dead_socket(path)
        # Nobody accepts, and the first question took the one place there is to wait.
        assert not remove_dead_socket(path), "alive, though its backlog is full"
    assert os.path.lexists(path)


@pytest.mark.parametrize("kind", ["file", "symbolic link"])
def test_what_is_no_socket_stays_and_cannot_be_bound(path: str, kind: str) -> None:
    if kind == "file":
        Path(path).write_text("precious")
    else:
        bound_socket(f"{path}.other", SocketAccess(mode=0o600)).close()
        os.symlink(f"{path}.other", path)
    before = os.lstat(path)
    assert remove_dead_socket(path)
    with pytest.raises(OSError) as caught:
        bound_socket(path, SocketAccess(mode=0o600))
    assert caught.value.errno == errno.EADDRINUSE
    assert os.lstat(path) == before


def test_the_mode_is_right_before_anybody_can_connect(path: str, umask: int) -> None:
    with bound_socket(path, SocketAccess(mode=0o660)) as bound, socket.socket(socket.AF_UNIX) as early:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        with pytest.raises(ConnectionRefusedError):
            early.connect(path)
        assert os.umask(umask) == umask
        bound.listen(1)
        early.connect(path)


def test_a_socket_is_its_groups_before_anybody_can_connect(path: str) -> None:
    group = os.getgroups()[0] if os.getgroups() else os.getgid()
    with bound_socket(path, SocketAccess(mode=0o660, group=str(group))) as bound:
        found = os.stat(path)
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (group, 0o660)
        bound.listen(1)


@pytest.mark.parametrize("access", [{"group": "no-such-group"}, {"owner": "no-such-user"}])
def test_nobody_of_that_name_leaves_no_socket(path: str, access: dict[str, str]) -> None:
    with pytest.raises(NotFound, match="no-such"):
        bound_socket(path, SocketAccess(mode=0o660, **access))
    assert not os.path.lexists(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may give a file to anybody")
def test_a_group_that_this_user_is_not_in_is_said(path: str) -> None:
    with pytest.raises(NotAllowed, match="group 0"):
        bound_socket(path, SocketAccess(mode=0o660, group="0"))
    assert not os.path.lexists(path)
