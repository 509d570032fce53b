"""Asking the other site, over a real connection: what it holds, and what it refuses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from engine.group.group import Group
from engine.group.site_state import PairRow
from engine.index.view import ZERO_BLOCK
from engine.peering.pair_states import Mode, PairState
from engine.peering.peer_answers import Header, PeerAnswers
from engine.peering.peer_requests import CONNECT_S, PeerRequests
from engine.ports.clock import SystemClock
from engine.ports.disk import Buffer
from engine.ports.transport import Caller
from protocol.compress import Compression, compress
from protocol.errors import Busy, FarshoreError, NotFound, Refused, Trimmed, Unreachable, WrongState
from protocol.limits import PEER_REQUEST_BLOCKS_MAX, PEER_REQUEST_SILENCE_S
from protocol.messages import decode_message
from protocol.peer_requests import CRON_LINES, Held, News
from protocol.positions import Cut
from protocol.rows import pack_row
from site_secondary.peer_door import PeerDoor
from tests.contract.drivers import LoopDriver
from tests.contract.transport_rig import Rig, real_rig
from tests.unit.engine.group_rig import GROUP_ID, GroupRig, filled
from tests.unit.site_secondary.test_peer_door import Holder

T = TypeVar("T")


def packed(caller: Caller, group: Group, header: Header, payload: Buffer) -> None:
    """As zstd where that is smaller."""
    smaller = compress(payload)
    if smaller is None:
        caller.send(header(Compression.NONE), payload)
    else:
        caller.send(header(Compression.ZSTD), smaller)


class Asked:
    """A group `g` with a volume `root`, at a site that listens, and someone who asks it."""

    def __init__(self, rig: GroupRig, network: Rig, driver: LoopDriver) -> None:
        self.rig = rig
        self.driver = driver
        rig.group.state.put_pair(
            PairRow(group="g", peer="client", mode=Mode.ASYNC, state=PairState.PAIRED, reason="")
        )
        holder = Holder(rig)
        holder.created.append(("g", GROUP_ID, rig.group.state.group("g").role))
        self.door = door = PeerDoor(holder, rig.group.state, lambda *_, **__: None, lambda: None, packed)
        self.server, self.client = network.site("server"), network.site("client")
        self.server.transport.allow({"client": self.client.keys[0]})
        self.server.transport.listen(door.on_message)
        self.requests = self.asking()
        self.volume = rig.create("root", 4096)

    def asking(self, group: str = "g", group_id: str = GROUP_ID) -> PeerRequests:
        return PeerRequests(
            group=group,
            group_id=group_id,
            address=self.server.address(),
            transport=self.client.transport,
            clock=self.driver.clock,
            rng=random.Random(1),
        )

    def run(self, answer: Awaitable[T]) -> T:
        return self.driver.loop.run_until_complete(asyncio.wait_for(answer, 20))

    def changed(self, before: Cut, after: Cut) -> list[int]:
        async def all_of_it() -> list[int]:
            found: list[int] = []
            first: int | None = 0
            while first is not None:
                blocks, first = await self.requests.changed(self.volume, before, after, first)
                found += blocks
            return found

        return self.run(all_of_it())


@pytest.fixture
def asked(make_rig: Callable[..., GroupRig]) -> Iterator[Asked]:
    driver = LoopDriver()
    network = real_rig(driver)
    yield Asked(make_rig(), network, driver)
    network.close()
    driver.close()


def test_blocks_at_a_cut(asked: Asked) -> None:
    asked.rig.write(asked.volume, 1, b"a", b"b")
    cut = asked.rig.end
    asked.rig.write(asked.volume, 1, b"c")
    found = asked.run(asked.requests.blocks_at(asked.volume, cut, [2, 1, 0]))
    assert found == [filled(b"b"), filled(b"a"), ZERO_BLOCK]
    assert found[2] is ZERO_BLOCK


def test_more_blocks_than_a_message_takes(asked: Asked) -> None:
    count = 3 * PEER_REQUEST_BLOCKS_MAX + 1
    for block in range(0, count, 2):
        asked.rig.write(asked.volume, block, bytes([1 + block % 250]))
    found = asked.run(asked.requests.blocks_at(asked.volume, asked.rig.end, range(count)))
    assert found == [ZERO_BLOCK if b % 2 else filled(bytes([1 + b % 250])) for b in range(count)]
    assert asked.requests.received_bytes < count * 4096  # some of it was compressed


def test_changed_blocks_come_in_slices(asked: Asked) -> None:
    before = asked.rig.end
    blocks = [b for b in range(4096) if b % 3]
    for block in blocks:
        asked.rig.write(asked.volume, block, b"x")
    asked.rig.checkpoint()
    after = asked.rig.end
    asked.rig.write(asked.volume, 0, b"y")
    assert asked.changed(before, after) == blocks
    assert asked.changed(after, asked.rig.end) == [0]
    assert asked.changed(after, after) == []


def test_frames_as_they_stand(asked: Asked) -> None:
    start = asked.rig.end
    frames = [asked.rig.write(asked.volume, block, b"x") for block in range(4)]
    end = asked.rig.end

    async def fetch() -> list[bytes]:
        found = asked.requests.frames(start.timeline, start.position, end.position)
        return [bytes(frame.raw) async for frame in found]

    fetched = asked.run(fetch())
    assert fetched == [
        bytes(frame.raw)
        for frame in asked.rig.group.reader.frames(start.timeline, start.position, end.position, None)
    ]
    assert len(fetched) == len(frames)


def test_a_cut_is_held_for_a_time(asked: Asked) -> None:
    cut = asked.rig.end
    asked.run(asked.requests.hold("restore", cut, 60))
    timed = asked.rig.group.kept.timed
    assert timed.get("asked by client: restore") == cut
    asked.rig.reopen()
    timed = asked.rig.group.kept.timed
    assert timed.get("asked by client: restore") == cut
    asked.rig.settle(61)
    assert timed.get("asked by client: restore") is None
    assert asked.rig.group.kept.leases.cuts() == set()


def test_a_cut_is_let_go(asked: Asked) -> None:
    asked.run(asked.requests.hold("restore", asked.rig.end, 60))
    asked.run(asked.requests.release("restore"))
    asked.run(asked.requests.release("never held"))
    assert asked.rig.group.kept.leases.cuts() == set()


def test_the_cut_of_a_time(asked: Asked) -> None:
    asked.rig.settle(1)
    asked.rig.write(asked.volume, 0, b"x")
    cut, utc_ns = asked.rig.end, asked.rig.group.head.utc_ns
    asked.rig.settle(1)
    asked.rig.write(asked.volume, 0, b"y")
    assert asked.run(asked.requests.cut_at(utc_ns)) == cut
    with pytest.raises(NotFound, match="x: nothing was written"):
        asked.run(asked.requests.cut_at(1))


def test_whether_a_record_is_understood(asked: Asked) -> None:
    assert asked.run(asked.requests.reads(CRON_LINES))
    assert not asked.run(asked.requests.reads("records of next year"))


def test_a_peer_that_is_busy_has_not_said_what_it_reads(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object, **__: object) -> Cut:
        raise Busy("too many questions wait for their turn")

    monkeypatch.setattr(asked.requests, "_held", busy)
    with pytest.raises(Busy):
        asked.run(asked.requests.reads(CRON_LINES))


def test_a_peer_that_does_not_share_the_group_has_not_said_it_either(asked: Asked) -> None:
    """It was told to upgrade, though its version reads all of it."""
    for other in (asked.asking(group="h"), asked.asking(group_id="f" * 16)):
        with pytest.raises(Refused, match="not shared") as caught:
            asked.run(other.reads(CRON_LINES))
        assert "pair show" in caught.value.next_step
        other.close()


def test_nor_one_that_has_a_defect(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("thrown by the test")

    monkeypatch.setattr(PeerAnswers, "_answer_or_refuse", broken)
    with pytest.raises(FarshoreError, match="defect"):
        asked.run(asked.requests.reads(CRON_LINES))


def test_what_is_not_there_is_refused(asked: Asked) -> None:
    end = asked.rig.end
    with pytest.raises(WrongState, match="past the end"):
        asked.run(asked.requests.hold("a", Cut(end.timeline, end.position + 1), 60))
    with pytest.raises(NotFound):
        asked.run(asked.requests.hold("a", Cut(end.timeline ^ 1, 5), 60))
    with pytest.raises(NotFound):
        asked.run(asked.requests.blocks_at(asked.volume + 1, end, [0]))
    asked.rig.group.dropping[end.timeline] = 0
    with pytest.raises(Trimmed):
        asked.run(asked.requests.blocks_at(asked.volume, end, [0]))


def test_only_the_group_that_is_shared_is_spoken_of(asked: Asked) -> None:
    for other in (asked.asking(group="h"), asked.asking(group_id="f" * 16)):
        with pytest.raises(NotFound, match="not shared"):
            asked.run(other.hold("a", asked.rig.end, 60))
        other.close()
    asked.rig.group.state.delete_pair("g")
    with pytest.raises(NotFound, match="not shared"):
        asked.run(asked.requests.hold("a", asked.rig.end, 60))


def test_a_lost_connection_is_made_anew(asked: Asked) -> None:
    asked.run(asked.requests.release("a"))
    asked.requests.close()
    asked.run(asked.requests.release("a"))


def test_a_peer_that_is_away_is_not_waited_for(asked: Asked) -> None:
    asked.server.transport.close()
    began = asked.driver.clock.monotonic()
    with pytest.raises(Unreachable):
        asked.run(asked.requests.release("a"))
    assert asked.driver.clock.monotonic() - began < 5


class JumpingClock(SystemClock):
    """A test sets it forward, and learns when it was looked at afterwards."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.ahead_s = 0.0
        self.looked_at = asyncio.Event()

    def monotonic(self) -> float:
        self.looked_at.set()
        return super().monotonic() + self.ahead_s

    async def jump(self, seconds: float) -> None:
        """Return once it was seen that so much time has passed."""
        self.ahead_s += seconds
        self.looked_at.clear()
        await self.looked_at.wait()


class SlowPeer:
    """A peer that is there, and answers when a test does so for it."""

    def __init__(self, network: Rig, driver: LoopDriver) -> None:
        self.heard: asyncio.Queue[tuple[Caller, int]] = asyncio.Queue()
        server, client = network.site("server"), network.site("client")
        server.transport.allow({"client": client.keys[0]})
        server.transport.listen(self._on_message)
        self.clock = JumpingClock(driver.loop)
        self.requests = PeerRequests(
            group="g",
            group_id=GROUP_ID,
            address=server.address(),
            transport=client.transport,
            clock=self.clock,
            rng=random.Random(1),
        )

    def _on_message(self, caller: Caller, header: bytes, payload: Buffer | None) -> None:
        self.heard.put_nowait((caller, decode_message(header).session))

    async def asked(self) -> Callable[[], None]:
        """A question has come; call what is returned to answer it."""
        caller, session = await self.heard.get()
        return lambda: caller.send(Held(session=session, cut=Cut(1, 2)).encode())


@pytest.fixture
def slow() -> Iterator[tuple[SlowPeer, LoopDriver]]:
    driver = LoopDriver()
    network = real_rig(driver)
    yield SlowPeer(network, driver), driver
    network.close()
    driver.close()


def test_a_peer_that_is_there_has_time_for_its_first_answer(slow: tuple[SlowPeer, LoopDriver]) -> None:
    """It may have others to answer first, each with a commit on a slow disk."""
    peer, driver = slow

    async def ask() -> None:
        asking = asyncio.ensure_future(peer.requests.cut_at(1))
        answer = await peer.asked()
        await peer.clock.jump(CONNECT_S + 1)
        answer()
        assert await asking == Cut(1, 2)
        asking = asyncio.ensure_future(peer.requests.cut_at(1))
        await peer.asked()
        await peer.clock.jump(PEER_REQUEST_SILENCE_S + 1)
        with pytest.raises(Unreachable):
            await asking

    driver.loop.run_until_complete(asyncio.wait_for(ask(), 20))


def test_a_question_of_a_connection_that_is_gone_leaves_the_next_one_alone(
    slow: tuple[SlowPeer, LoopDriver],
) -> None:
    """Whoever asks again is not thrown off the new connection by the others of the old one."""
    peer, driver = slow

    async def ask() -> None:
        before = asyncio.ensure_future(peer.requests.cut_at(1))
        await peer.asked()
        peer.requests.close()
        again = asyncio.ensure_future(peer.requests.cut_at(1))
        answer = await peer.asked()
        with pytest.raises(Unreachable):
            await before
        answer()
        assert await again == Cut(1, 2)

    driver.loop.run_until_complete(asyncio.wait_for(ask(), 15))


def test_news_do_not_keep_a_lost_answer_waited_for(slow: tuple[SlowPeer, LoopDriver]) -> None:
    """They are asked for every three seconds: whoever awaits an answer that was lost, as one beyond the mark
    of a socket is, must not wait for ever."""
    peer, driver = slow

    async def ask() -> None:
        lost = asyncio.ensure_future(peer.requests.cut_at(1))
        await peer.asked()
        for _ in range(2):
            asking = asyncio.ensure_future(peer.requests.news(1, 0))
            caller, session = await peer.heard.get()
            caller.send(News(session=session, run=1, next=0).encode(), pack_row(()))
            await asking
            await peer.clock.jump(PEER_REQUEST_SILENCE_S * 0.6)
        with pytest.raises(Unreachable):
            await asyncio.wait_for(lost, PEER_REQUEST_SILENCE_S / 4)

    driver.loop.run_until_complete(asyncio.wait_for(ask(), 30))


def test_a_group_that_stops_says_so_to_whoever_waits(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its questions in the queue were dropped without a word."""
    door = asked.door
    monkeypatch.setattr(door._answers, "_has_room", lambda peer, group: False)

    async def ask() -> None:
        asking = asyncio.ensure_future(asked.requests.cut_at(1))
        while not door._answers._requests.get("client"):  # noqa: ASYNC110 - of the peer's, no event here
            await asyncio.sleep(0.01)
        asked.rig.group.failed = "a defect"
        door.group_stopped("g")
        with pytest.raises(WrongState, match="a defect"):
            await asking

    asked.run(ask())
