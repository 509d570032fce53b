"""What a host can make the daemon hold, and for how long: C8, C9, and what nobody reported.

The figures are printed; the same with sockets and a daemon's memory is in tests/interop/test_host_budgets.py.
"""

from __future__ import annotations

import pytest

from protocol.limits import (
    BLOCK_BYTES,
    NBD_FIRST_BUFFER_BYTES,
    NBD_HALF_REQUEST_TIMEOUT_S,
    NBD_PARKED_BYTES,
    NBD_RECEIVE_BUFFERS_BYTES_MAX,
    NBD_REQUEST_BYTES_MAX,
    NBD_TURN_BLOCKS,
    NBD_UNANSWERED_MAX,
    NBD_UNSENT_BYTES_MAX,
)
from protocol.nbd.client_transmission import Answer
from protocol.nbd.constants import Command, CommandFlag
from protocol.nbd.requests import Request, encode_request
from site_primary.nbd.host_budget import HostBudget
from site_primary.nbd.stream import SHRINK_AFTER
from tests.unit.engine.group_rig import GroupRig
from tests.unit.site_primary.nbd.nbd_rig import EVERYTHING, NbdHost, NbdServed

BLOCKS = NBD_REQUEST_BYTES_MAX // BLOCK_BYTES
LARGEST = NBD_REQUEST_BYTES_MAX
TURN_BYTES = NBD_TURN_BLOCKS * BLOCK_BYTES
MIB = 1 << 20


@pytest.fixture
def served(rig: GroupRig) -> NbdServed:
    return NbdServed(rig, BLOCKS)


def half_write(host: NbdHost, sent: int) -> Answer:
    """The largest WRITE, of which only the first bytes come."""
    answer, header = host.client.request(Command.WRITE, 0, LARGEST)
    host.send(header + b"h" * sent)
    host.settle()
    return answer


# C8: replies that are not taken.


@pytest.mark.parametrize("structured", [True, False])
def test_c8_forty_large_reads_not_taken_hold_one_turn(served: NbdServed, structured: bool) -> None:
    host = served.connect(structured=structured)
    host.wire.takes = 0
    for _ in range(40):
        host.request(Command.READ, 0, LARGEST)
    host.settle()
    print(f"40 READs of 32 MiB not taken: {host.wire.kept_most / MIB:.2f} MiB held")
    assert 0 < host.wire.kept_most <= TURN_BYTES + 4096
    assert served.budget.unsent_bytes == len(host.wire.kept)
    assert not host.wire.reading
    host.wire.abort()
    host.settle()
    assert served.budget.unsent_bytes == served.budget.lent_bytes == 0


def test_c8_another_host_is_answered_between_two_pieces(served: NbdServed) -> None:
    host, other = served.connect("large"), served.connect("other")
    for _ in range(4):
        host.request(Command.READ, 0, LARGEST)
    _, read = other.client.request(Command.READ, 0, 512)
    served.rig.clock.call_soon(lambda: other.send(read))
    host.settle()
    at = [name for name, _ in served.order].index("other")
    before = sum(size for name, size in served.order[:at] if name == "large")
    print(f"another host waited for {before / MIB:.2f} MiB of a large one's replies")
    assert before <= 2 * TURN_BYTES
    assert max(size for _, size in served.order) <= TURN_BYTES + 4096


def test_c8_a_flood_of_small_reads_goes_in_turns(served: NbdServed) -> None:
    """A receive buffer full of READs is 28 bytes each to ask, and 4 KiB to answer."""
    host = served.connect()
    data, answers = b"", []
    for at in range(8000):
        answer, raw = host.client.request(Command.READ, at % BLOCKS * BLOCK_BYTES, BLOCK_BYTES)
        answers.append(answer)
        data += raw
    host.send(data)
    host.settle()
    assert all(answer.done and not answer.error for answer in answers)
    assert max(size for _, size in served.order) <= TURN_BYTES


def test_c8_a_map_is_a_turn_of_its_own(served: NbdServed) -> None:
    host = served.connect()
    answers = []
    data = b""
    for _ in range(50):
        answer, raw = host.client.request(Command.BLOCK_STATUS, 0, LARGEST)
        answers.append(answer)
        data += raw
    host.send(data)
    host.settle()
    assert all(answer.done and not answer.error for answer in answers)
    assert len(served.order) >= len(answers)


def test_replies_of_many_hosts_make_everybodys_turns_smaller(served: NbdServed) -> None:
    hosts = [served.connect(f"host {number}") for number in range(100)]
    for host in hosts:
        host.wire.takes = 0
        host.request(Command.READ, 0, 4 * MIB)
        host.settle()
    held = sum(host.wire.kept_most for host in hosts)
    print(f"100 hosts that take nothing: {held / MIB:.1f} MiB held")
    assert held == served.budget.unsent_bytes <= NBD_UNSENT_BYTES_MAX + 100 * 17 * BLOCK_BYTES
    # A host that takes its replies is served all the same, and everybody once they do.
    last = served.connect("last")
    answer = last.request(Command.READ, 0, LARGEST)
    last.settle()
    assert answer.done
    for host in hosts:
        host.wire.take(EVERYTHING)
        host.settle()
        assert len(host.raw) >= 4 * MIB
    assert served.budget.unsent_bytes == 0
    assert served.budget.turn_blocks == NBD_TURN_BLOCKS


# C9: requests that are not whole.


@pytest.mark.parametrize("count", [30, 300])
def test_c9_half_writes_hold_no_more_than_the_pool(served: NbdServed, count: int) -> None:
    hosts = [served.connect(f"host {number}") for number in range(count)]
    for host in hosts:
        half_write(host, (2 * MIB if count == 30 else 0) + 600_000)
    parked = sum(len(host.connection._view) for host in hosts if not host.connection._lent)
    print(f"{count} half writes: {served.budget.lent_bytes / MIB:.1f} MiB lent, {parked / MIB:.2f} parked")
    assert served.budget.lent_bytes < NBD_RECEIVE_BUFFERS_BYTES_MAX + 2 * MIB
    assert parked <= count * 2 * NBD_PARKED_BYTES
    # Others are served meanwhile, with requests of any size.
    other = served.connect("other")
    for size in (512, 4096, 700_000, 3 * MIB, LARGEST):
        answer = other.write(0, b"o" * size)
        other.settle()
        assert answer.done
        assert not answer.error
    assert served.read() == b"o" * LARGEST
    for host in hosts:
        host.wire.abort()
    served.rig.settle(0)
    assert served.budget.lent_bytes == 0


def test_c9_a_half_request_has_a_deadline_and_an_idle_host_has_none(served: NbdServed) -> None:
    idle, half, header = served.connect(), served.connect(), served.connect()
    idle.write(0, b"i" * 512)
    half_write(half, 100)
    header.send(b"\x25\x60")
    served.rig.settle(NBD_HALF_REQUEST_TIMEOUT_S - 0.1)
    assert not half.wire.closed
    served.rig.settle(0.2)
    assert half.wire.closed
    assert header.wire.closed
    served.rig.settle(10 * NBD_HALF_REQUEST_TIMEOUT_S)
    assert not idle.wire.closed
    assert served.budget.lent_bytes == 0


@pytest.mark.parametrize("came", [0, MIB, 2 * MIB])
def test_c9_a_large_write_that_stops_where_a_block_ends_has_a_deadline(served: NbdServed, came: int) -> None:
    """All that came of it is in the journal: the connection holds nothing, and the request is not whole."""
    host, done = served.connect(), served.connect()
    half_write(host, came)
    answer = half_write(done, came)
    assert served.budget.lent_bytes == 0
    served.rig.settle(NBD_HALF_REQUEST_TIMEOUT_S - 0.1)
    assert not host.wire.closed
    done.send(b"d" * (LARGEST - came))
    done.settle()
    assert answer.done
    served.rig.settle(0.2)
    assert host.wire.closed
    served.rig.settle(10 * NBD_HALF_REQUEST_TIMEOUT_S)
    assert not done.wire.closed


@pytest.mark.parametrize("came", [0, 4096])
def test_c9_the_rest_of_a_refused_write_has_a_deadline(served: NbdServed, came: int) -> None:
    host, done = served.connect(), served.connect()
    for each in (host, done):
        answer, header = each.client.request(Command.WRITE, LARGEST - 512, MIB)
        each.send(header + bytes(came))
        each.settle()
        assert answer.done
        assert answer.error
    served.rig.settle(NBD_HALF_REQUEST_TIMEOUT_S - 0.1)
    assert not host.wire.closed
    done.send(bytes(MIB - came))
    done.settle()
    served.rig.settle(0.2)
    assert host.wire.closed
    served.rig.settle(10 * NBD_HALF_REQUEST_TIMEOUT_S)
    assert not done.wire.closed


def test_c9_a_slow_write_that_goes_on_is_not_closed(served: NbdServed) -> None:
    host = served.connect()
    answer = half_write(host, 0)
    for _ in range(32):
        served.rig.settle(NBD_HALF_REQUEST_TIMEOUT_S - 1)
        host.send(b"s" * MIB)
        host.settle()
        assert not host.wire.closed
    assert answer.done
    assert served.read() == b"s" * LARGEST


def test_c9_a_host_that_is_not_read_from_is_not_closed(served: NbdServed) -> None:
    """It does not take its replies, so the rest of its request stays with it. That is not a half request."""
    host = served.connect()
    host.wire.takes = 0
    host.request(Command.READ, 0, 4096)
    host.settle()
    half_write(host, 100)
    served.rig.settle(3 * NBD_HALF_REQUEST_TIMEOUT_S)
    assert not host.wire.closed
    host.wire.take(EVERYTHING)
    host.settle()
    served.rig.settle(NBD_HALF_REQUEST_TIMEOUT_S + 1)
    assert host.wire.closed


def test_buffers_grow_for_large_requests_and_shrink_again(served: NbdServed) -> None:
    host = served.connect()
    sizes = []
    lend = served.budget.lend

    def lent(size: int) -> memoryview:
        sizes.append(size)
        return lend(size)

    served.budget.lend = lent  # type: ignore[method-assign]
    for payload in (512, MIB, MIB, *[512] * 2 * SHRINK_AFTER):
        host.write(0, b"p" * payload)
        host.settle()
        assert served.budget.lent_bytes == 0
    assert max(sizes) == 2 * MIB
    assert sizes[-1] == NBD_FIRST_BUFFER_BYTES


def test_buffers_given_back_are_kept_only_up_to_a_bound() -> None:
    budget = HostBudget(lambda _: None, lambda _, __: None)
    buffers = [budget.lend(MIB) for _ in range(50)]
    for buffer in buffers:
        budget.give_back(buffer)
    assert budget.lent_bytes == 0
    assert budget._kept_bytes == 4 * MIB


def test_flushes_that_wait_for_the_disk_are_bounded(served: NbdServed) -> None:
    host = served.connect()
    held: list[object] = []
    served.rig.group.when_durable = held.append  # type: ignore[method-assign,assignment]
    flush = encode_request(Request(flags=0, command=Command.FLUSH, cookie=1, offset=0, length=0, payload=b""))
    host.send(flush * (3 * NBD_UNANSWERED_MAX))
    host.settle()
    assert not host.wire.reading
    assert host.connection._unanswered <= NBD_UNANSWERED_MAX + NBD_TURN_BLOCKS


def test_turns_are_taken_in_order_one_a_round() -> None:
    rounds: list[object] = []
    budget = HostBudget(rounds.append, lambda _, __: None)
    taken: list[str] = []
    again = iter([True, False])

    def first() -> None:
        taken.append("first")
        if next(again):
            budget.ask_turn(first)

    budget.ask_turn(first)
    budget.ask_turn(lambda: taken.append("second"))
    while rounds:
        before = len(taken)
        rounds.pop(0)()  # type: ignore[operator]
        assert len(taken) == before + 1
    assert taken == ["first", "second", "first"]


def test_fua_on_an_empty_write_waits_for_the_disk_and_writes_nothing(served: NbdServed) -> None:
    host = served.connect()
    end = served.rig.group.writer.written
    answer = host.write(0, b"", int(CommandFlag.FUA))
    served.rig.settle()
    assert answer.done
    assert not answer.error
    assert served.rig.group.writer.written == end
