"""Hosts' connections at a closed gate: what is answered when, and what is held for how long.

The connection is given a host's bytes and a list for its replies; group, gate and journal are real, time is
the simulator's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from struct import Struct
from typing import cast

import pytest

from engine.peering.pair_states import Mode
from engine.ports.disk import SyncDone
from engine.ports.durable import RealDisk
from protocol.limits import BLOCK_BYTES, NBD_TURN_BLOCKS, NBD_UNANSWERED_MAX
from protocol.nbd.constants import REQUEST_MAGIC, Command, CommandFlag, NbdError
from protocol.nbd.exports import ExportInfo, Negotiated
from protocol.nbd.requests import REQUEST
from site_primary.nbd.connection import NbdConnection
from site_primary.nbd.exports import Export
from site_primary.sync_gate import SyncGate
from tests.unit.engine.group_rig import GroupRig

TIMEOUT_S = 5.0
_REPLY = Struct(">IIQ")


class Socket:
    """What a connection needs of an asyncio transport."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, int]] = []  # (cookie, error)
        self.sends = 0
        self.reading = True
        self.closed = False

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.sends += 1
        data = b"".join(parts)
        for at in range(0, len(data), _REPLY.size):
            _, error, cookie = _REPLY.unpack_from(data, at)
            self.replies.append((cookie, error))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    close = abort


class Served:
    """A volume of 64 blocks in a group with a gate, and hosts' connections to it."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        rig.create("root", 64)
        group = rig.group
        self.gate = SyncGate(group, TIMEOUT_S)
        self.rows: list[bool] = []
        self.asked: list[int] = []
        volume = group.volume("root")
        self.export = Export("g/root", group.live_view(volume), group, volume, self.gate, read_only=False)

    def start(self, mode: Mode) -> None:
        self.gate.start(
            mode,
            fallen_back=False,
            persist=lambda _, fallen_back: self.rows.append(fallen_back),
            ask_durable=self.asked.append,
        )
        self.gate.on_session(connected=True)
        self.peer_has_all()

    def peer_has_all(self) -> None:
        end = self.rig.group.writer.written
        self.gate.on_marks(end, end)

    def connect(self) -> Host:
        return Host(self)


class Host:
    """One connection. Every request has the cookie that it is given."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.socket = Socket()
        info = ExportInfo(name="g/root", size_bytes=64 * BLOCK_BYTES)
        self.connection = NbdConnection(
            cast(asyncio.Transport, self.socket),
            served.export,
            Negotiated(export=info, structured_replies=False, no_zeroes=True),
            "host",
            lambda: None,
        )

    def send(self, *requests: bytes) -> None:
        """As one wake-up, and the rounds of the loop in which more could come."""
        self.connection.take(b"".join(requests))
        self.served.rig.settle(0)

    @property
    def answers(self) -> list[tuple[int, int]]:
        return self.socket.replies


def write(cookie: int, *, block: int = 0, fua: bool = False) -> bytes:
    flags = int(CommandFlag.FUA) if fua else 0
    head = REQUEST.pack(REQUEST_MAGIC, flags, Command.WRITE, cookie, block * BLOCK_BYTES, BLOCK_BYTES)
    return head + bytes([cookie % 255 + 1]) * BLOCK_BYTES


def bare(command: Command, cookie: int, length: int = 0) -> bytes:
    return REQUEST.pack(REQUEST_MAGIC, 0, command, cookie, 0, length)


@pytest.fixture
def served(rig: GroupRig) -> Served:
    return Served(rig)


def test_async_answers_at_once(served: Served) -> None:
    served.start(Mode.ASYNC)
    host = served.connect()
    host.send(write(1), write(2))
    assert host.answers == [(1, 0), (2, 0)]
    assert host.socket.sends == 1


def test_writes_of_a_wake_up_are_answered_together_when_the_peer_has_them(served: Served) -> None:
    served.start(Mode.SYNC)
    host, other = served.connect(), served.connect()
    host.send(write(1), write(2, block=1))
    first = served.rig.group.writer.written
    other.send(write(3, block=2))
    assert host.answers == other.answers == []
    served.gate.on_marks(first, 0)
    assert host.answers == [(1, 0), (2, 0)]
    assert host.socket.sends == 1
    assert other.answers == []
    served.peer_has_all()
    assert other.answers == [(3, 0)]


def test_a_read_does_not_wait(served: Served) -> None:
    served.start(Mode.SYNC)
    host = served.connect()
    host.send(write(1), bare(Command.CACHE, 2, BLOCK_BYTES))
    assert host.answers == [(2, 0)]


@pytest.mark.parametrize("fua", [False, True])
def test_flush_and_fua_wait_for_both_disks(served: Served, fua: bool) -> None:
    served.start(Mode.SYNC)
    host = served.connect()
    before = served.rig.group.writer.written
    host.send(write(1, fua=True) if fua else write(1) + bare(Command.FLUSH, 2))
    end = served.rig.group.writer.written
    assert served.asked == [end]
    served.rig.settle()
    assert served.rig.group.writer.durable == end
    assert host.answers == []
    served.gate.on_marks(end, before)
    assert host.answers == ([] if fua else [(1, 0)])
    served.gate.on_marks(end, end)
    assert host.answers == ([(1, 0)] if fua else [(1, 0), (2, 0)])


@pytest.mark.parametrize("fua", [False, True])
def test_a_mode_that_comes_in_force_while_the_disk_works_holds_for_who_waits(
    served: Served, monkeypatch: pytest.MonkeyPatch, fua: bool
) -> None:
    """The disk took seconds, and a flush of before was answered in a mode that promises that the peer's disk
    has it, too: it had not."""
    syncs: list[SyncDone] = []
    monkeypatch.setattr(RealDisk, "start_sync", lambda _, files, directories, done: syncs.append(done))
    host = served.connect()
    before = served.rig.group.writer.written
    host.send(write(1, fua=True) if fua else write(1) + bare(Command.FLUSH, 2))
    end = served.rig.group.writer.written
    served.start(Mode.SYNC)
    served.gate.on_marks(end, before)
    (done,) = syncs
    done(None)
    assert served.rig.group.writer.durable == end
    assert host.answers == ([] if fua else [(1, 0)])
    assert served.asked == [end]
    served.gate.on_marks(end, end)
    assert host.answers == ([(1, 0)] if fua else [(1, 0), (2, 0)])


def test_after_a_fallback_hosts_get_their_answers(served: Served) -> None:
    served.start(Mode.SYNC)
    host = served.connect()
    host.send(write(1), bare(Command.FLUSH, 2))
    served.rig.settle(TIMEOUT_S - 0.1)
    assert host.answers == []
    served.rig.settle(0.2)
    assert host.answers == [(1, 0), (2, 0)]
    assert served.rows == [True]
    host.send(write(3))
    assert host.answers[2:] == [(3, 0)]


def test_strict_fails_the_host_and_then_takes_no_write_into_the_journal(served: Served) -> None:
    served.start(Mode.SYNC_STRICT)
    host = served.connect()
    served.gate.on_session(connected=False)
    host.send(write(1))
    served.rig.settle(TIMEOUT_S + 0.1)
    assert host.answers == [(1, NbdError.EIO)]
    end = served.rig.group.writer.written
    host.send(write(2), bare(Command.TRIM, 3, BLOCK_BYTES), bare(Command.CACHE, 4, BLOCK_BYTES), write(5))
    host.send(bare(Command.WRITE_ZEROES, 6, BLOCK_BYTES))
    assert served.rig.group.writer.written == end
    error = int(NbdError.EIO)
    assert host.answers[1:] == [(2, error), (3, error), (4, 0), (5, error), (6, error)]
    served.gate.on_session(connected=True)
    served.peer_has_all()
    host.send(write(7))
    served.peer_has_all()
    assert host.answers[-1] == (7, 0)


def test_a_lost_connection_is_answered_no_more(served: Served) -> None:
    served.start(Mode.SYNC)
    host = served.connect()
    host.send(write(1), bare(Command.FLUSH, 2))
    host.connection.connection_lost(None)
    served.peer_has_all()
    served.rig.settle()
    assert host.answers == []
    assert not served.export.connections


def test_a_host_with_too_much_unanswered_is_read_no_more_until_the_peer_answers(served: Served) -> None:
    served.start(Mode.SYNC)
    host = served.connect()
    trims = b"".join(bare(Command.TRIM, cookie, BLOCK_BYTES) for cookie in range(1000))
    for _ in range(NBD_UNANSWERED_MAX // 1000):
        host.send(trims)
    assert host.socket.reading
    host.send(trims)
    assert not host.socket.reading
    assert host.connection._unanswered <= NBD_UNANSWERED_MAX + NBD_TURN_BLOCKS
    served.peer_has_all()
    served.rig.settle(0)  # what came meanwhile has its turn
    served.peer_has_all()
    assert host.socket.reading
    assert len(host.answers) == NBD_UNANSWERED_MAX // 1000 * 1000 + 1000
