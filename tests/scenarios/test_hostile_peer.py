"""A hostile peer with a key that is known: mutated messages of every kind in every state of a session, at a
daemon that receives from it and ships to it, and that has groups which are none of its business.

FARSHORE_FULL=1 sends 100,000 of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from console.client import Client
from console.demo.host import Host
from protocol.commands.backup import BackupCreate, BackupList
from protocol.commands.base import BaseCommand, ReplyType
from protocol.commands.journal import JournalShow
from protocol.commands.pair import PairCreate
from protocol.commands.site import SiteStatus
from protocol.commands.volume import VolumeCreate
from protocol.messages import Ack, Hello, Refused, Report, Reset, Welcome
from protocol.positions import parse_cut
from protocol.wire import WireRow
from tests.support.clients import MIB
from tests.support.foreign_peer import group_id
from tests.support.hostile_messages import KINDS, Mint, Pool
from tests.support.hostile_peer import (
    GROUP_ID,
    SITE_ID,
    TIMELINE,
    HostilePeer,
    Journal,
    Shipping,
    heard,
    session_of,
)
from tests.support.pairs import resident_bytes
from tests.support.sites import Site, running_sites

FULL = bool(os.environ.get("FARSHORE_FULL"))
MESSAGES = 100_000 if FULL else 3_000
CALLED_S = 40.0
A_STATE = 40  # messages in a state before it is made anew
RISE_MAX = 96 * MIB  # 64 for answers unread (C11), and the allocator's own
FOREIGN = ("mine", "theirs")
# What a person is told while a peer says such things.
CLAIMS = {"peer.claim_refused", "peer.two_daemons", "hosts.cut_off", "timeline.turned_back"}


@pytest.fixture
def target() -> Iterator[Site]:
    """A site with a group of its own, one paired with another peer, and one that it ships to the hostile
    peer."""
    with running_sites("b") as (site,):
        for group in (*FOREIGN, "out"):
            ask(site, VolumeCreate(group=group, volume="v", size_bytes=4 << 20))
            with Host(site.nbd_socket, f"{group}/v") as host:
                host.write(0, group.encode().ljust(4096, b"."))
                host.flush()
            ask(site, BackupCreate(group=group, label="kept", pin=True))
        ask(site, BackupCreate(group="out", label="locked", lock_s=3600))
        site.expected_errors |= CLAIMS
        yield site


def ask(site: Site, command: BaseCommand[ReplyType]) -> ReplyType:
    """What the daemon answers."""
    with Client(f"ipc://{site.control_socket}") as client:
        return client.call(command, 60.0)


def state_of(site: Site) -> dict[str, Any]:
    """Of the groups that are none of the peer's: everything that may not change."""
    found: dict[str, Any] = {}
    status = {row.group: row for row in ask(site, SiteStatus()).groups}
    for group in FOREIGN:
        row = status[group]
        frames = ask(site, JournalShow(group=group, limit=1)).frames
        backups = [(each.id, each.pinned) for each in ask(site, BackupList(group=group)).backups]
        kept = (row.role, row.mode, row.peer, row.head, row.written, row.durable, row.volumes)
        found[group] = (kept, frames[-1].digest, backups)
        with Host(site.nbd_socket, f"{group}/v") as host:
            found[group] += (host.read(0, 4096),)
    return found


def check_locked(site: Site) -> None:
    """The locked backup of the group that the peer shares is there, and whole."""
    (locked,) = [row for row in ask(site, BackupList(group="out")).backups if row.label == "locked"]
    assert locked.locked_until
    with Host(site.nbd_socket, "out/v@locked") as host:
        assert host.read(0, 4096) == b"out".ljust(4096, b".")


def files_beside(site: Site) -> set[str]:
    """What lies in the directory of the test and not in the site's."""
    parent = site.directory.parent
    return {str(each.relative_to(parent)) for each in parent.rglob("*") if site.directory not in each.parents}


def pool_of(site: Site, journal: Journal) -> Pool:
    """What means something there."""
    pool = Pool()
    pool.numbers += [TIMELINE, TIMELINE + 1, 99, 1, 0, journal.volume, 1 << 40]
    for frame in journal.frames:
        pool.numbers += [frame.prefix.position, frame.prefix.end]
        pool.digests.append(frame.prefix.digest)
        pool.payloads.append(bytes(frame.raw))
    pool.payloads += [b"", bytes(4096), b"".join(pool.payloads[:3])]
    for group in (*FOREIGN, "out"):
        cut = parse_cut(ask(site, JournalShow(group=group, limit=1)).frames[-1].position)
        pool.numbers += [cut.timeline, cut.position]
        pool.words.append(group_id(site, group))
    words = [
        "g",
        *FOREIGN,
        "out",
        GROUP_ID,
        SITE_ID,
        "async",
        "sync",
        "paired",
        "copying",
        "split",
        "trimmed",
    ]
    pool.words += [*words, "superseded", "diverged", "failed", "", "../../../x", "/tmp/fs-outside", "\x1b[2J"]
    return pool


class Tally:
    """What was sent, by kind and by state."""

    def __init__(self) -> None:
        self.by_kind: Counter[str] = Counter()
        self.by_state: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """All of them."""
        return self.by_kind.total()


def send_mutated(
    mint: Mint, kind: type[WireRow], about: dict[str, Any], dealer: zmq.Socket[bytes], *way: bytes
) -> None:
    """One message; sometimes twice."""
    header, payload = mint.mutated(kind, about)
    parts = [*way, header] if payload is None else [*way, header, payload]
    for _ in range(1 + (mint.rng.random() < 0.05)):
        dealer.send_multipart(parts)


def as_shipper(peer: HostilePeer, mint: Mint, journal: Journal, count: int, tally: Tally) -> None:
    """The peer calls, and ships group `g` there. Every kind comes in every state."""
    states = list(Shipping(None, journal, peer.site_id).states)  # type: ignore[arg-type]
    sent = 0
    while sent < count:
        with peer.calling() as dealer:
            shipping = Shipping(dealer, journal, peer.site_id)
            for state in states:
                shipping.session = mint.rng.getrandbits(60) | 1
                shipping.states[state]()
                about = {"session": shipping.session, "group": "g", "group_id": GROUP_ID, "version": 1}
                for at in range(A_STATE):
                    kind = KINDS[(tally.by_state[state] + at) % len(KINDS)]
                    send_mutated(mint, kind, about, dealer)
                    sent += 1
                    tally.by_kind[kind.__name__] += 1
                tally.by_state[state] += A_STATE
                while dealer.poll(0):
                    dealer.recv_multipart()
            # All of it is done with once a question by the book is answered; a connection may be lost.
            shipping.asking()
            heard(dealer, kinds=(Report,), wait_ms=1000)


SAYS = {
    "called": None,
    "given nothing": Welcome(session=1, lineage=(), written=0, durable=0, digest=bytes(16)),
    "given an ack": Ack(session=1, timeline=0, written=1 << 40, durable=1 << 40),
    "given a tail": Welcome(
        session=1, lineage=((5, 0, 0, 1, SITE_ID),), written=9000, durable=9000, digest=bytes(16)
    ),
    "given a reset": Reset(session=1, reason="so"),
    "given a refusal": Refused(session=1, code="trimmed", message="so"),
}


def as_receiver(peer: HostilePeer, mint: Mint, tally: Tally, done: threading.Event) -> None:
    """The site calls the peer, to ship group `out` to it: until there was time for every state, and the other
    direction is done. It dials again only seconds after a session that went wrong."""
    number, ends = 0, time.monotonic() + CALLED_S
    with peer.called() as router:
        while not done.is_set() or time.monotonic() < ends:
            if not router.poll(500):
                continue
            way, header, *_ = router.recv_multipart()
            said = session_of(header)
            if said is None:
                raise AssertionError(f"the daemon said what it may not: {header!r}")
            if not isinstance(said, Hello) and mint.rng.random() < 0.7:
                continue
            state = list(SAYS)[number % len(SAYS)] if isinstance(said, Hello) else "being shipped to"
            number += 1
            answer = SAYS.get(state)
            if answer is not None:
                fields = {name: getattr(answer, name) for name in answer.__struct_fields__}
                router.send_multipart([way, type(answer)(**fields | {"session": said.session}).encode()])
            about = {"session": said.session, "version": 1}
            for at in range(A_STATE):
                kind = KINDS[(tally.by_state[state] + at) % len(KINDS)]
                send_mutated(mint, kind, about, router, way)
                tally.by_kind[kind.__name__] += 1
            tally.by_state[state] += A_STATE


@pytest.mark.timeout(3600)
def test_nothing_that_a_known_peer_says_hurts(target: Site) -> None:
    carol = HostilePeer(target, "carol", "00000000000000cc")
    mallory = HostilePeer(target, "mallory")
    ask(target, PairCreate(group="theirs", peer="carol", mode="async"))
    ask(target, PairCreate(group="out", peer="mallory", mode="async"))
    assert carol.name == "carol"
    journal = Journal(mallory.site_id)
    mint = Mint(10, pool_of(target, journal))
    before, beside = state_of(target), files_beside(target)
    outside = Path("/tmp/fs-outside").exists()
    rss = [resident_bytes(target.pid)]
    tally, began = Tally(), time.monotonic()
    tally_called, done = Tally(), threading.Event()
    called = threading.Thread(target=as_receiver, args=(mallory, Mint(11, mint.pool), tally_called, done))
    called.start()
    try:
        as_shipper(mallory, mint, journal, MESSAGES, tally)
    finally:
        done.set()
    called.join()
    took_s = time.monotonic() - began
    rss.append(resident_bytes(target.pid))
    for counts, name in ((tally, "calling"), (tally_called, "called")):
        print(f"\n{name}: {counts.total} messages")
        print("  by kind: " + ", ".join(f"{kind} {n}" for kind, n in sorted(counts.by_kind.items())))
        print("  by state: " + ", ".join(f"{state} {n}" for state, n in counts.by_state.items()))
    print(f"in {took_s:.0f} s; RSS {rss[0] // MIB} -> {rss[1] // MIB} MiB")
    assert {kind.__name__ for kind in KINDS} == set(tally.by_kind) == set(tally_called.by_kind)
    assert len(tally.by_state) == 11
    assert len(tally_called.by_state) >= 4
    assert rss[1] - rss[0] < RISE_MAX

    assert target.process is not None
    assert target.process.poll() is None, target.tail()
    assert state_of(target) == before
    check_locked(target)
    assert files_beside(target) == beside
    assert Path("/tmp/fs-outside").exists() == outside
    # It may ship as many groups as it likes, under names that are free; those are its own.
    for row in ask(target, SiteStatus()).groups:
        own = (row.peer, row.role) == ("mallory", "secondary")
        assert own or row.group in {*FOREIGN, "out"}, row
    with Host(target.nbd_socket, "mine/v") as host:
        host.write(4096, b"y" * 4096)
        host.flush()
    assert target.stop() == 0
    target.start()
    check_locked(target)
    assert not [row for row in ask(target, SiteStatus()).groups if row.state == "damaged"]
    target.check_log()
