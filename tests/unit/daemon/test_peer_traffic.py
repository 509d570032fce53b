"""Answers and groups share a peer's rate; an answer waits in the same queue, and holds up nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from daemon.peer_traffic import SiteTraffic
from daemon.peers import PeerOptions
from engine.group.group import Group
from engine.ports.disk import Buffer
from protocol.commands.peer import RateWindow
from protocol.compress import Compression, decompress
from tests.unit.engine.group_rig import GroupRig

RATE = 1 << 20
ANSWER = bytes(4 << 20)
MESSAGE = bytes(512 << 10)


@dataclass
class Connection:
    """A peer's, and what it was sent."""

    peer: str = "lon"
    got: list[tuple[bytes, bytes]] = field(default_factory=list)
    fails: bool = False

    def send(self, header: bytes, payload: Buffer | None = None) -> None:
        if self.fails:
            self.fails = False
            raise AssertionError("thrown by the test")
        self.got.append((header, bytes(payload or b"")))


def plain(number: int) -> Callable[[Compression], bytes]:
    return lambda used: f"{number} {used.name}".encode()


class Site:
    """What a site has of it, for one group."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.options = PeerOptions(rate_bytes_s=RATE)
        self.traffic = SiteTraffic(rig.clock, lambda _: self.options, lambda _: 7)
        self.caller = Connection()
        self.frames = 0

    def ship(self) -> None:
        """A group that always has more."""
        queue = self.traffic.to("lon").queue
        while queue.may_send(self):
            self.frames += 1
            queue.sent(len(MESSAGE))

    def take_turn(self) -> None:
        """See `Sender.take_turn`."""
        self.ship()

    def turn_failed(self, defect: Exception) -> None:
        """See `Sender.turn_failed`."""
        raise defect

    @property
    def group(self) -> Group:
        return self.rig.group

    def answer(self, number: int, payload: bytes = ANSWER) -> None:
        self.traffic.answer(self.caller, self.group, plain(number), payload)

    def run_for(self, seconds: float) -> None:
        self.rig.world.run_for(seconds)


@pytest.fixture
def site(make_rig: Callable[..., GroupRig]) -> Site:
    return Site(make_rig())


def test_answers_without_end_leave_frames_their_turn(site: Site) -> None:
    """As a peer asks that always has four questions under way."""
    site.ship()
    began = site.frames
    asked = 4
    for number in range(asked):
        site.answer(number)
    for _ in range(115):
        site.run_for(1.0)
        while asked < len(site.caller.got) + 4:
            site.answer(asked)
            asked += 1
    answers = len(site.caller.got)
    assert answers >= 20
    assert abs(site.frames - began - answers) <= 1
    sent = answers * len(ANSWER) + (site.frames - began) * len(MESSAGE)
    assert sent <= RATE * 115 + len(ANSWER)
    assert [header for header, _ in site.caller.got] == [b"%d NONE" % at for at in range(answers)]


def test_what_waits_counts_as_unread(site: Site) -> None:
    site.answer(0)
    site.answer(1)
    site.answer(2)
    assert len(site.caller.got) == 1
    assert site.traffic.unread_bytes("lon") == 2 * len(ANSWER) + 7
    assert site.traffic.unread_bytes("rom") == 7
    site.run_for(20.0)
    assert site.traffic.unread_bytes("lon") == 7


def test_a_rate_that_is_lifted_lets_answers_go_in_their_order(site: Site) -> None:
    for number in range(3):
        site.answer(number)
    site.options = PeerOptions(rate_bytes_s=0, compress="zstd")
    site.traffic.to("lon")
    site.answer(3)
    site.run_for(0.0)
    assert [header for header, _ in site.caller.got] == [b"0 NONE", b"1 NONE", b"2 NONE", b"3 ZSTD"]
    assert decompress(site.caller.got[3][1]) == ANSWER


def test_of_a_group_that_stopped_nothing_is_sent(site: Site) -> None:
    site.answer(0)
    site.answer(1)
    site.ship()
    site.traffic.group_stopped("g")
    frames = site.frames
    site.run_for(20.0)
    assert len(site.caller.got) == 1
    assert site.traffic.unread_bytes("lon") == 7
    assert site.frames > frames


def test_an_answer_that_cannot_be_sent_is_the_only_one_lost(site: Site) -> None:
    site.options = PeerOptions(rate_bytes_s=64 << 10)
    for number in range(4):
        site.answer(number, bytes(64 << 10))
    site.caller.fails = True
    site.run_for(20.0)
    assert [header for header, _ in site.caller.got] == [b"0 NONE", b"2 NONE", b"3 NONE"]


def test_a_site_that_stops_sends_none_of_them(site: Site) -> None:
    site.answer(0)
    site.answer(1)
    site.traffic.close()
    site.run_for(20.0)
    assert len(site.caller.got) == 1


def test_a_window_is_noticed_once_it_begins_and_when_the_clock_is_set(site: Site) -> None:
    """The simulated clock begins at midnight, UTC."""
    site.options = PeerOptions(
        rate_bytes_s=RATE,
        windows=(RateWindow(from_minute=1, until_minute=2, zone="Etc/UTC", rate_bytes_s=4 * RATE),),
    )
    site.ship()

    def sent_in(seconds: float) -> int:
        before = site.frames
        site.run_for(seconds)
        return round((site.frames - before) * len(MESSAGE) / seconds / RATE)

    assert sent_in(60.0) == 1
    site.run_for(2.0)
    assert sent_in(56.0) == 4
    site.run_for(4.0)
    assert sent_in(20.0) == 1
    site.rig.clock.jump(-60.0)
    site.run_for(2.0)
    assert sent_in(20.0) == 4
    site.rig.clock.jump(86_400.0 * 366 - 60.0)
    site.run_for(4.0)
    assert sent_in(10.0) == 1
