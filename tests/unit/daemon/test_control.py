"""The control server over real ZeroMQ sockets: replies, deadlines, keys, bounds, and who may connect."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import zmq
import zmq.asyncio
from msgspec import Raw

from console.client import Client
from daemon.control import ControlServer
from engine.acting import actor
from protocol.commands.base import Command
from protocol.commands.pair import PairDelete, PairDeleteReply
from protocol.commands.site import SiteToken, SiteTokenReply
from protocol.commands.volume import VolumeList, VolumeListReply
from protocol.envelopes import Request, decode_answer, encode_data, encode_request
from protocol.errors import Busy, FarshoreError, NotAllowed, NotFound, TimedOut, Unreachable, UsageError
from protocol.limits import CONTROL_MESSAGE_BYTES_MAX

Answering = Callable[[Command], Awaitable[Raw]]
TEST_TIMEOUT_S = 30


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test's coroutine in a loop of its own, at most for `TEST_TIMEOUT_S`."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **fixtures), TEST_TIMEOUT_S))

    return run


def reply_to(command: Command, text: str) -> Raw:
    """A reply of the command's type, with a text somewhere in it."""
    if isinstance(command, PairDelete):
        return encode_data(PairDeleteReply(group=text, peer=""))
    if isinstance(command, VolumeList):
        return encode_data(VolumeListReply(volumes=[]))
    token = SiteTokenReply(site=text, token="", site_id="", replication=None, public_key="", fingerprint="")
    return encode_data(token)


async def plain(command: Command) -> Raw:
    """Says what it got."""
    return reply_to(command, type(command).__name__)


class Gate:
    """A command that runs until it is let go; counts its runs and how they ended."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()
        self.runs = 0

    async def __call__(self, command: Command) -> Raw:
        self.runs += 1
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return reply_to(command, f"run {self.runs}")


@asynccontextmanager
async def serving(path: Path, dispatch: Answering, **options: Any) -> AsyncIterator[ControlServer]:
    """A server on a unix socket in `path`."""
    server = ControlServer(asyncio.get_running_loop(), endpoint_in(path), dispatch, **options)
    server.start()
    try:
        yield server
    finally:
        await server.close()


def endpoint_in(path: Path) -> str:
    """The endpoint of a site in a directory."""
    return f"ipc://{path}/control.sock"


async def call(path: Path, command: Command, timeout_s: float = 5.0, key: str | None = None) -> str:
    """One call through the real client, in a thread; the text in its reply."""

    def run() -> str:
        with Client(endpoint_in(path)) as client:
            reply = client.call(command, timeout_s, idempotency_key=key)
        return str(reply.group if isinstance(command, PairDelete) else reply.site)

    return await asyncio.to_thread(run)


@pytest.fixture
def logged() -> Any:
    """Log entries of the test."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@in_loop
async def test_a_command_knows_whose_it_is(tmp_path: Path) -> None:
    async def who(command: Command) -> Raw:
        return reply_to(command, actor())

    async with serving(tmp_path, who):
        assert await call(tmp_path, SiteToken()) == f"uid:{os.getuid()}"


@in_loop
async def test_a_command_gets_its_reply(tmp_path: Path) -> None:
    async with serving(tmp_path, plain):
        assert await call(tmp_path, SiteToken()) == "SiteToken"
        with Client(endpoint_in(tmp_path)) as client:
            for _ in range(3):
                assert (await asyncio.to_thread(client.call, VolumeList())).volumes == []


@in_loop
async def test_the_socket_is_its_owners_alone(tmp_path: Path) -> None:
    directory = tmp_path / "made"
    old_umask = os.umask(0)
    try:
        async with serving(directory, plain):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            assert stat.S_IMODE((directory / "control.sock").stat().st_mode) == 0o600
            assert os.umask(0) == 0
        assert not (directory / "control.sock").exists()
    finally:
        os.umask(old_umask)


@in_loop
async def test_an_operator_error_travels(tmp_path: Path) -> None:
    async def refuse(_command: Command) -> Raw:
        raise NotFound("no volume vm1/x", subject="vm1/x", next_step="farshore volume list")

    async with serving(tmp_path, refuse):
        with pytest.raises(NotFound) as caught:
            await call(tmp_path, SiteToken())
    assert caught.value.subject == "vm1/x"
    assert caught.value.next_step == "farshore volume list"


@in_loop
async def test_a_bug_is_logged_and_answered_and_the_next_command_served(tmp_path: Path, logged: Any) -> None:
    async def broken(command: Command) -> Raw:
        if isinstance(command, VolumeList):
            raise ZeroDivisionError("secret detail")
        return (
            encode_data({"unencodable": object()})
            if isinstance(command, PairDelete)
            else await plain(command)
        )

    async with serving(tmp_path, broken):
        for command in (VolumeList(), PairDelete(group="vm1")):
            with pytest.raises(FarshoreError, match="failed inside the daemon") as caught:
                await call(tmp_path, command)
            assert caught.value.code == "internal"
            assert "secret detail" not in str(caught.value.as_dict())
        assert await call(tmp_path, SiteToken()) == "SiteToken"
    errors = [entry for entry in logged if entry["log_level"] == "error"]
    assert [entry["command"] for entry in errors] == ["volume.list", "pair.delete"]
    assert all(entry["exc_info"] for entry in errors)


@in_loop
async def test_a_deadline_answers_and_cancels(tmp_path: Path) -> None:
    gate = Gate()
    async with serving(tmp_path, gate):
        with pytest.raises(TimedOut, match=r"did not end within 0\.2 s"):
            await call(tmp_path, SiteToken(), 0.2)
        await asyncio.wait_for(gate.cancelled.wait(), 5)


@in_loop
async def test_a_key_stands_for_one_execution(tmp_path: Path) -> None:
    gate = Gate()
    command = PairDelete(group="vm1")
    async with serving(tmp_path, gate):
        first = asyncio.create_task(call(tmp_path, command, key="k"))
        await asyncio.wait_for(gate.started.wait(), 5)
        second = asyncio.create_task(call(tmp_path, command, key="k"))
        with pytest.raises(UsageError, match="another command"):
            await call(tmp_path, PairDelete(group="vm2"), key="k")
        gate.release.set()
        assert await first == await second == "run 1"
        assert await call(tmp_path, command, key="k") == "run 1"
        assert await call(tmp_path, command, key="other") == "run 2"
        with pytest.raises(UsageError, match="another command"):
            await call(tmp_path, PairDelete(group="vm2"), key="k")


@in_loop
async def test_one_waiter_giving_up_does_not_cancel_for_the_other(tmp_path: Path) -> None:
    gate = Gate()
    command = PairDelete(group="vm1")
    async with serving(tmp_path, gate):
        patient = asyncio.create_task(call(tmp_path, command, key="k"))
        await asyncio.wait_for(gate.started.wait(), 5)
        with pytest.raises(TimedOut):
            await call(tmp_path, command, 0.2, key="k")
        assert not gate.cancelled.is_set()
        gate.release.set()
        assert await patient == "run 1"


@in_loop
async def test_a_failure_is_not_remembered_by_its_key(tmp_path: Path) -> None:
    runs: list[Command] = []

    async def second_time_lucky(command: Command) -> Raw:
        runs.append(command)
        if len(runs) == 1:
            raise Busy("not yet")
        return await plain(command)

    async with serving(tmp_path, second_time_lucky):
        with pytest.raises(Busy):
            await call(tmp_path, PairDelete(group="vm1"), key="k")
        assert await call(tmp_path, PairDelete(group="vm1"), key="k") == "PairDelete"


@in_loop
async def test_reading_takes_no_key(tmp_path: Path) -> None:
    gate = Gate()
    gate.release.set()
    async with serving(tmp_path, gate):
        assert await call(tmp_path, SiteToken(), key="k") == "run 1"
        assert await call(tmp_path, SiteToken(), key="k") == "run 2"


@in_loop
async def test_requests_in_flight_have_a_bound(tmp_path: Path) -> None:
    gate = Gate()
    async with serving(tmp_path, gate, in_flight_max=1):
        first = asyncio.create_task(call(tmp_path, SiteToken()))
        await asyncio.wait_for(gate.started.wait(), 5)
        with pytest.raises(Busy, match="1 requests"):
            await call(tmp_path, SiteToken())
        gate.release.set()
        assert await first == "run 1"


@in_loop
async def test_closing_cancels_what_runs_and_can_be_done_twice(tmp_path: Path) -> None:
    gate = Gate()
    async with serving(tmp_path, gate) as server:
        caller = asyncio.create_task(call(tmp_path, PairDelete(group="vm1")))
        await asyncio.wait_for(gate.started.wait(), 5)
        await server.close()
        assert gate.cancelled.is_set()
        with pytest.raises(Unreachable, match="may have been carried out"):
            await caller
        await server.close()


@in_loop
async def test_malformed_messages_are_answered_when_they_can_be(tmp_path: Path, logged: Any) -> None:
    good = Request(id=b"i" * 16, deadline_s=5.0, command=SiteToken())
    newer = msgspec.msgpack.encode({"id": b"n" * 16, "api": 2, "command": {"name": "x"}, "deadline_s": 1})
    context = zmq.asyncio.Context()
    dealer: zmq.asyncio.Socket = context.socket(zmq.DEALER)
    dealer.linger = 0
    try:
        async with serving(tmp_path, plain):
            dealer.connect(endpoint_in(tmp_path))
            await dealer.send(b"noise")
            await dealer.send_multipart([b"", b"three parts"])
            await dealer.send(newer)
            await dealer.send(encode_request(good))
            replies = [decode_answer(await asyncio.wait_for(dealer.recv(), 5)) for _ in range(2)]
        by_id = {reply.id: reply for reply in replies}
        assert by_id[good.id].ok
        with pytest.raises(UsageError, match="speaks control API 1, not 2"):
            by_id[b"n" * 16].result()
        assert sum(entry["event"] == "control message dropped" for entry in logged) == 2
    finally:
        dealer.close()
        context.term()


@in_loop
async def test_an_oversized_message_costs_its_sender_the_connection(tmp_path: Path) -> None:
    context = zmq.asyncio.Context()
    dealer: zmq.asyncio.Socket = context.socket(zmq.DEALER)
    dealer.linger = 0
    try:
        async with serving(tmp_path, plain):
            dealer.connect(endpoint_in(tmp_path))
            await dealer.send(b"\x00" * (CONTROL_MESSAGE_BYTES_MAX + 1))
            assert await call(tmp_path, SiteToken()) == "SiteToken"
    finally:
        dealer.close()
        context.term()


@in_loop
async def test_a_second_daemon_does_not_steal_the_socket(tmp_path: Path) -> None:
    async with serving(tmp_path, plain):
        with pytest.raises(Busy, match="answers"):
            async with serving(tmp_path, plain):
                pass
        assert await call(tmp_path, SiteToken()) == "SiteToken"


@in_loop
async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    async with serving(tmp_path, plain):
        assert await call(tmp_path, SiteToken()) == "SiteToken"


@in_loop
async def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("precious")
    with pytest.raises(NotAllowed, match="no socket"):
        async with serving(tmp_path, plain):
            pass
    assert (tmp_path / "control.sock").read_text() == "precious"


@in_loop
async def test_a_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)  # noqa: S103
    with pytest.raises(NotAllowed, match="other users"):
        async with serving(tmp_path, plain):
            pass
