"""The door itself: how many are let in at once, what is kept back, and whose connection one is."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from engine.ports.unix_sockets import bound_socket
from protocol.errors import Busy
from protocol.limits import NBD_ACCEPTS_A_ROUND, NBD_DESCRIPTORS_RESERVED, NBD_SILENT_S
from site_primary.nbd import listener as listener_module
from site_primary.nbd.listener import NbdListener, descriptors_for_hosts, tcp_sockets
from site_primary.nbd.server import OWNER_AND_GROUP, ExportOpener, NbdServer
from site_primary.nbd.socket_names import host_of
from tests.conftest import missing


class Door:
    """A listener, and what it let in and refused."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        self.taken: list[socket.socket] = []
        self.refused: list[str] = []
        self.listener = NbdListener(loop, listening, self.taken.append, self.refused.append)

    async def answered(self, count: int) -> None:
        """Until so many were let in or refused."""
        for _ in range(10_000):
            if len(self.taken) + len(self.refused) >= count:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"{len(self.taken)} let in, {len(self.refused)} refused")

    def close(self) -> None:
        self.listener.close()
        for each in self.taken:
            each.close()


def knock(path: str, count: int) -> list[socket.socket]:
    made = []
    for _ in range(count):
        one = socket.socket(socket.AF_UNIX)
        one.connect(path)
        made.append(one)
    return made


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "nbd.sock")


def test_few_are_let_in_a_round_and_all_in_the_end(path: str) -> None:
    async def run() -> list[int]:
        door = Door(asyncio.get_running_loop(), bound_socket(path, OWNER_AND_GROUP))
        made = knock(path, 3 * NBD_ACCEPTS_A_ROUND)
        counts = []
        while len(door.taken) < len(made):
            await asyncio.sleep(0)
            counts.append(len(door.taken))
        door.close()
        for each in made:
            each.close()
        return counts

    counts = asyncio.run(run())
    assert max(after - before for before, after in zip([0, *counts], counts, strict=False)) == 16


def test_c10_the_last_descriptors_are_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        with socket.socket() as probe:
            lowest = probe.fileno()
        # As in a process that may open some more than are open now.
        monkeypatch.setattr("site_primary.nbd.listener.descriptors_for_hosts", lambda: lowest + 30)
        door = Door(asyncio.get_running_loop(), bound_socket(path, OWNER_AND_GROUP))
        made = knock(path, 20)
        await door.answered(len(made))
        assert door.refused
        assert all(each.fileno() < lowest + 30 for each in door.taken)
        served = len(door.taken)
        refused = [one for one in made if _closed(one)]
        assert len(refused) == len(made) - served
        # Room again: the next is let in.
        for each in made:
            each.close()
        for each in door.taken:
            each.close()
        door.taken.clear()
        door.refused.clear()
        made = knock(path, 1)
        await door.answered(1)
        assert len(door.taken) == 1
        door.close()
        made[0].close()

    asyncio.run(run())


def _closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False


def test_without_any_descriptor_it_waits_a_moment(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket stays readable: to try at once again would take the whole processor."""
    monkeypatch.setattr("site_primary.nbd.listener.NBD_ACCEPT_PAUSE_S", 0.01)

    class Exhausted(socket.socket):
        calls = 0

        def accept(self):
            Exhausted.calls += 1
            if Exhausted.calls <= 2:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def run() -> None:
        plain = bound_socket(path, OWNER_AND_GROUP)
        listening = Exhausted(fileno=plain.detach())
        door = Door(asyncio.get_running_loop(), listening)
        made = knock(path, 1)
        await door.answered(3)
        assert door.refused == ["Too many open files"] * 2
        door.close()
        made[0].close()

    asyncio.run(run())


def test_the_reserve_is_part_of_what_there_is() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limit - NBD_DESCRIPTORS_RESERVED <= descriptors_for_hosts() < limit


def test_a_path_in_use_is_refused_and_a_dead_one_taken(path: str) -> None:
    async def run() -> None:
        bound_socket(path, OWNER_AND_GROUP).close()
        loop = asyncio.get_running_loop()
        first, second = (NbdServer(loop, cast(ExportOpener, None)) for _ in range(2))
        await first.listen(f"unix:{path}")
        assert stat.S_IMODE(os.stat(path).st_mode) == OWNER_AND_GROUP.mode
        with pytest.raises(Busy, match=f"cannot listen on unix:{path}: a server answers there"):
            await second.listen(f"unix:{path}")
        await second.close()
        knock(path, 1)[0].close()
        await first.close()

    asyncio.run(run())
    assert not os.path.exists(path)


def test_whose_connection_it_is() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert host_of(one).startswith("uid ")

    async def run() -> tuple[str, str]:
        names = []
        for address in ("127.0.0.1", "::1"):
            (listening,) = await tcp_sockets(asyncio.get_running_loop(), address, 0)
            listening.listen(1)
            with socket.create_connection(listening.getsockname()[:2]) as client:
                accepted, _ = listening.accept()
                with accepted:
                    names.append(host_of(accepted))
                assert client
            listening.close()
        return names[0], names[1]

    assert asyncio.run(run()) == ("127.0.0.1", "::/64")


def test_c44_what_is_accepted_on_tcp_ends_soon_after_its_host() -> None:
    async def run() -> list[int]:
        (listening,) = await tcp_sockets(asyncio.get_running_loop(), "127.0.0.1", 0)
        listening.listen(1)
        with listening, socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                options = (*names, socket.TCP_USER_TIMEOUT)
                return [accepted.getsockopt(socket.IPPROTO_TCP, each) for each in options]

    idle_s, every_s, tries, silent_ms = asyncio.run(run())
    assert idle_s + tries * every_s == NBD_SILENT_S < 120
    assert silent_ms == 1000 * NBD_SILENT_S


NAMESPACE, OUTSIDE, INSIDE = "farshore-c44", "198.51.100.1", "198.51.100.2"


@pytest.fixture
def other_machine(tool: Callable[[str], str]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Runs programs as on another machine that can be reached at INSIDE."""
    if os.geteuid() != 0:
        missing("a network namespace needs root")
    ip = tool("ip")

    def call(*words: str) -> None:
        subprocess.run([ip, *words], check=True, capture_output=True)

    with ExitStack() as stack:
        subprocess.run([ip, "netns", "del", NAMESPACE], check=False, capture_output=True)
        call("netns", "add", NAMESPACE)
        stack.callback(call, "netns", "del", NAMESPACE)
        call("link", "add", "fs-c44", "type", "veth", "peer", "name", "fs-c44-in", "netns", NAMESPACE)
        stack.callback(call, "link", "del", "fs-c44")
        call("addr", "add", f"{OUTSIDE}/30", "dev", "fs-c44")
        call("link", "set", "fs-c44", "up")
        call("-n", NAMESPACE, "addr", "add", f"{INSIDE}/30", "dev", "fs-c44-in")
        call("-n", NAMESPACE, "link", "set", "fs-c44-in", "up")

        def run(*words: str) -> subprocess.Popen[bytes]:
            child = subprocess.Popen([ip, "netns", "exec", NAMESPACE, *words])
            stack.callback(child.wait)
            stack.callback(child.kill)
            return child

        yield run


def test_c44_a_host_whose_machine_vanished_is_gone(
    other_machine: Callable[..., subprocess.Popen[bytes]],
    tool: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No FIN and no RST comes: the machine lost its power or its network. One was idle, one had a reply on
    the way."""
    for name in ("NBD_KEEPALIVE_IDLE_S", "NBD_KEEPALIVE_EVERY_S", "NBD_KEEPALIVE_TRIES", "NBD_SILENT_S"):
        monkeypatch.setattr(listener_module, name, 2 if name == "NBD_SILENT_S" else 1)
    unplug = [tool("ip"), "-n", NAMESPACE, "link", "set", "fs-c44-in", "down"]

    async def run() -> list[int | None]:
        loop = asyncio.get_running_loop()
        (listening,) = await tcp_sockets(loop, OUTSIDE, 0)
        door = Door(loop, listening)
        connect = f"socket.create_connection({listening.getsockname()!r})"
        other_machine(sys.executable, "-c", f"import socket, time; s = {connect}, {connect}; time.sleep(600)")
        await door.answered(2)
        await asyncio.to_thread(subprocess.run, unplug, check=True)
        await loop.sock_sendall(door.taken[0], b"x" * 4096)
        codes = []
        for each in door.taken:
            with pytest.raises(OSError) as caught:
                await asyncio.wait_for(loop.sock_recv(each, 1), 30)
            codes.append(caught.value.errno)
        door.close()
        return codes

    assert set(asyncio.run(run())) <= {errno.ETIMEDOUT, errno.EHOSTUNREACH}
