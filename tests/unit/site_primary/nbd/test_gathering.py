"""Hosts whose requests come in one round of the loop: one frame, and everything else as if each were alone.

Group, journal and connections are real, time is the simulator's.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from engine.ports.disk import Buffer
from protocol.errors import NoSpace
from protocol.events import Row
from protocol.frames import Frame
from protocol.limits import BLOCK_BYTES, NBD_WHOLE_WRITE_BYTES, SECTOR_BYTES
from protocol.nbd.client_transmission import Answer
from protocol.nbd.constants import Command, CommandFlag, NbdError
from site_primary.nbd.connection import NbdConnection
from site_primary.nbd.gathering import TRY_EVERY
from tests.unit.engine.group_rig import GroupRig
from tests.unit.site_primary.nbd.nbd_rig import NbdHost, NbdServed

BLOCKS = 64
SECTORS = BLOCK_BYTES // SECTOR_BYTES


@pytest.fixture
def served(rig: GroupRig) -> NbdServed:
    return NbdServed(rig, BLOCKS)


@pytest.fixture
def frames(served: NbdServed) -> list[Frame]:
    """Those that are written from now on."""
    written: list[Frame] = []
    served.rig.group.listeners.frame.append(written.append)
    return written


def crowd(served: NbdServed, count: int) -> list[NbdHost]:
    """Hosts that have been found to come together."""
    hosts = [served.connect(f"host {number}") for number in range(count)]
    for _ in range(2 + TRY_EVERY // count):
        for host in hosts:
            host.write(0, bytes(BLOCK_BYTES))
        served.rig.settle(0)
    return hosts


def block(content: int) -> bytes:
    return bytes([content]) * BLOCK_BYTES


def test_hosts_that_write_at_once_share_a_frame(served: NbdServed, frames: list[Frame]) -> None:
    hosts = crowd(served, 16)
    frames.clear()
    answers = [host.write(at * BLOCK_BYTES, block(at + 1)) for at, host in enumerate(hosts)]
    assert not frames
    assert not any(answer.done for answer in answers)
    served.rig.settle(0)
    assert [frame.prefix.events for frame in frames] == [16]
    assert all(answer.done and not answer.error for answer in answers)
    assert served.read()[: 16 * BLOCK_BYTES] == b"".join(block(at + 1) for at in range(16))
    assert served.budget.lent_bytes == 0


def test_a_lone_host_waits_for_nobody(served: NbdServed, frames: list[Frame]) -> None:
    host = served.connect()
    at_once = 0
    for _ in range(10 * TRY_EVERY):
        answer = host.write(0, block(1))
        at_once += answer.done
        served.rig.settle(0)
        assert answer.done
    assert at_once >= 9 * TRY_EVERY
    assert len(frames) == 10 * TRY_EVERY


def test_a_host_that_is_left_alone_soon_waits_for_nobody_again(served: NbdServed) -> None:
    host, *others = crowd(served, 16)
    for other in others:
        other.wire.abort()
    served.rig.settle(0)
    waited = 0
    for _ in range(10 * TRY_EVERY):
        answer = host.write(0, block(1))
        waited += not answer.done
        served.rig.settle(0)
    assert waited <= 2 * TRY_EVERY


@pytest.mark.parametrize("zero", [False, True])
def test_parts_of_one_block_from_several_hosts_are_all_there(served: NbdServed, zero: bool) -> None:
    """Each is merged with what those before it wrote, though none of that is in the journal yet."""
    hosts = crowd(served, SECTORS)
    served.connect().write(0, block(9))
    served.rig.settle(0)
    for at, host in enumerate(hosts):
        if zero and at % 2:
            host.request(Command.WRITE_ZEROES, at * SECTOR_BYTES, SECTOR_BYTES)
        else:
            host.write(at * SECTOR_BYTES, bytes([at + 1]) * SECTOR_BYTES)
    served.rig.settle(0)
    expected = [0 if zero and at % 2 else at + 1 for at in range(SECTORS)]
    assert served.read()[:BLOCK_BYTES] == b"".join(bytes([each]) * SECTOR_BYTES for each in expected)


def test_a_whole_block_and_then_a_part_of_it(served: NbdServed) -> None:
    one, other = crowd(served, 2)
    one.write(0, block(1))
    other.write(SECTOR_BYTES, b"p" * SECTOR_BYTES)
    served.rig.settle(0)
    expected = bytearray(block(1))
    expected[SECTOR_BYTES : 2 * SECTOR_BYTES] = b"p" * SECTOR_BYTES
    assert served.read()[:BLOCK_BYTES] == expected


def test_a_batch_that_is_committed_on_the_way_comes_after_what_was_gathered(
    served: NbdServed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first host's block was merged before the second wrote all of it: in the other order the rest of it
    would be older than both."""
    monkeypatch.setattr("site_primary.write_path.FRAME_EVENTS_MAX", 2)
    one, other = crowd(served, 2)
    one.write(0, b"p" * SECTOR_BYTES)
    for at in range(2):
        other.write(at * BLOCK_BYTES, block(at + 1))
    served.rig.settle(0)
    assert served.read()[SECTOR_BYTES:BLOCK_BYTES] == block(1)[SECTOR_BYTES:]


def test_who_reads_and_who_flushes_in_the_same_round(served: NbdServed, frames: list[Frame]) -> None:
    writer, reader, flusher, forcer = crowd(served, 4)
    frames.clear()
    written = writer.write(0, block(1))
    read = reader.request(Command.READ, BLOCK_BYTES, BLOCK_BYTES)
    flushed = flusher.request(Command.FLUSH)
    forced = forcer.write(2 * BLOCK_BYTES, block(3), flags=int(CommandFlag.FUA))
    served.rig.settle(0)
    assert written.done
    assert read.done
    assert len(frames) == 1
    served.rig.settle()
    assert flushed.done
    assert forced.done
    assert served.rig.group.writer.durable == served.rig.group.writer.written


def refuse_appends(served: NbdServed, error: Exception) -> Callable[[], None]:
    """From now on nothing gets into the journal, until what is returned is called."""
    group, append = served.rig.group, served.rig.group.append

    def refused(rows: list[Row], payload: list[Buffer], payload_bytes: int) -> Frame:
        raise error

    group.append = refused  # type: ignore[method-assign,assignment]

    def mend() -> None:
        group.append = append  # type: ignore[method-assign]

    return mend


def test_a_full_disk_is_told_to_each_that_wrote(served: NbdServed) -> None:
    *writers, reader = crowd(served, 5)
    before = served.read()
    mend = refuse_appends(served, NoSpace("no room", subject="journal", next_step="make some"))
    answers = [host.write(at * BLOCK_BYTES, block(7)) for at, host in enumerate(writers)]
    read = reader.request(Command.READ, 0, BLOCK_BYTES)
    served.rig.settle(0)
    assert [answer.error for answer in answers] == [NbdError.ENOSPC] * len(writers)
    assert read.done
    assert not read.error
    mend()
    assert served.read() == before
    again = [host.write(at * BLOCK_BYTES, block(8)) for at, host in enumerate(writers)]
    served.rig.settle(0)
    assert all(answer.done and not answer.error for answer in again)


def test_a_full_disk_found_before_a_merge_is_told_too(served: NbdServed) -> None:
    """The part of a block makes those before it be committed first, and that fails."""
    one, other = crowd(served, 2)
    mend = refuse_appends(served, NoSpace("no room", subject="journal", next_step="make some"))
    first = one.write(0, block(7))
    second = other.write(0, b"p" * SECTOR_BYTES)
    served.rig.settle(0)
    assert first.error == second.error == NbdError.ENOSPC
    mend()
    assert served.read()[:BLOCK_BYTES] == block(0)


@pytest.mark.parametrize("leave", [NbdConnection.shut, lambda each: each.connection_lost(None)])
def test_who_leaves_before_the_round_has_written_nothing(
    served: NbdServed, leave: Callable[[NbdConnection], None]
) -> None:
    """A restore that closes its volume first is not written over by a host that it had closed out."""
    one, other = crowd(served, 2)
    one.write(0, block(7))
    answer = other.write(BLOCK_BYTES, block(8))
    leave(one.connection)
    served.rig.settle(0)
    assert served.read()[: 2 * BLOCK_BYTES] == block(0) + block(8)
    assert answer.done
    assert served.budget.lent_bytes == 0


def test_a_defect_of_one_is_its_own(served: NbdServed, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = crowd(served, 4)
    begin = NbdConnection.begin

    def broken(self: NbdConnection, now_s: float) -> int:
        if self is hosts[1].connection:
            raise ZeroDivisionError
        return begin(self, now_s)

    monkeypatch.setattr(NbdConnection, "begin", broken)
    answers = [host.write(at * BLOCK_BYTES, block(at + 1)) for at, host in enumerate(hosts)]
    served.rig.settle(0)
    assert [answer.done for answer in answers] == [True, False, True, True]
    assert [host.wire.closed for host in hosts] == [False, True, False, False]
    assert served.read()[: 4 * BLOCK_BYTES] == block(1) + block(0) + block(3) + block(4)


def test_a_defect_of_the_frame_acknowledges_nobody(served: NbdServed) -> None:
    *writers, reader = crowd(served, 4)
    mend = refuse_appends(served, ZeroDivisionError("not a refusal"))
    answers = [host.write(0, block(7)) for host in writers]
    read = reader.request(Command.READ, 0, BLOCK_BYTES)
    served.rig.settle(0)
    assert not any(answer.done and not answer.error for answer in answers)
    assert all(host.wire.closed for host in writers)
    assert read.done
    mend()
    assert served.read()[:BLOCK_BYTES] == block(0)


def test_large_writes_of_many_hosts_are_answered_as_they_are_committed(
    served: NbdServed, frames: list[Frame]
) -> None:
    """A round takes as much as makes one turn: the others' frames come after the first hosts' answers."""
    hosts = crowd(served, 24)
    frames.clear()
    size = 16 * BLOCK_BYTES
    answers = []
    for host in hosts:
        answer, data = host.client.request(Command.WRITE, 0, size, block(5) * 16)
        answers.append((host, answer))
        host.send(data)
    served.rig.settle(0)
    assert all(answer.done and not answer.error for _, answer in answers)
    assert max(frame.prefix.payload_bytes for frame in frames) <= NBD_WHOLE_WRITE_BYTES
    assert served.budget.lent_bytes == 0


@pytest.mark.parametrize("seed", range(20))
def test_random_requests_of_many_hosts_end_as_in_some_order(served: NbdServed, seed: int) -> None:
    """Of each sector the last of one host's writes is there, whoever's: what came in one round has no order
    among hosts, and rounds have one."""
    rng = random.Random(seed)
    hosts = crowd(served, 6)
    may: list[set[int]] = [{0} for _ in range(BLOCKS * SECTORS)]
    for turn in range(30):
        of_hosts: list[dict[int, int]] = []
        answers: list[Answer] = []
        for host in rng.sample(hosts, rng.randint(1, 6)):
            mine: dict[int, int] = {}
            wire = b""
            for _ in range(rng.randint(1, 3)):
                count = rng.choice((1, 3, SECTORS, 2 * SECTORS))
                first = rng.randrange(0, 6 * SECTORS)
                if count >= SECTORS and rng.random() < 0.7:
                    first -= first % SECTORS
                tag = 0 if rng.random() < 0.2 else rng.randint(1, 255)
                at, size = first * SECTOR_BYTES, count * SECTOR_BYTES
                if tag:
                    answer, data = host.client.request(Command.WRITE, at, size, bytes([tag]) * size)
                else:
                    answer, data = host.client.request(Command.WRITE_ZEROES, at, size)
                answers.append(answer)
                wire += data
                mine |= dict.fromkeys(range(first, first + count), tag)
            host.send(wire)
            of_hosts.append(mine)
        served.rig.settle(0)
        assert all(answer.done and not answer.error for answer in answers), turn
        for sector in {sector for mine in of_hosts for sector in mine}:
            may[sector] = {mine[sector] for mine in of_hosts if sector in mine}
        data = served.read()
        for sector, tags in enumerate(may):
            found = set(data[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])
            assert len(found) == 1, f"turn {turn}: sector {sector} is a mixture"
            assert found <= tags, f"turn {turn}: sector {sector} has {found}, and may have {tags}"
            may[sector] = found
