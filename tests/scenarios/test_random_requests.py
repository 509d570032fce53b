"""Requests of every command, length, flag and offset on two connections, against an oracle, at a paired site.

The oracle is a byte array and a plain reading of the protocol: which error a request must get, what it may
change, what a read gives. Both connections change the volume at the same time, each its own half; what they
read is compared while nobody writes. Afterwards every byte, `verify` at both sites, the peer and a restart.

20,000 requests; a million with FARSHORE_FULL=1. FARSHORE_SEED picks others.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter

import pytest

from protocol.nbd.constants import Command
from tests.support.pairs import newest_frame, start_pair
from tests.support.raw_host import Asked, RawHost
from tests.support.sites import Site, running_sites

FULL = os.environ.get("FARSHORE_FULL") == "1"
REQUESTS = 1_000_000 if FULL else 20_000
# For the peer to have everything, and for verify: a million leave it further behind than the usual minute.
WAIT_S = 900 if FULL else 60
VERIFY_S = 1800 if FULL else 600
SEED = int(os.environ.get("FARSHORE_SEED", "1"))
SIZE = (80 << 20) - 1234  # no multiple of a block
HALF = 40 << 20
BLOCK = 4096
LARGEST = 32 << 20
EPERM, EINVAL, ENOSPC, EOVERFLOW = 1, 22, 28, 75
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16

ALLOWED = {
    Command.READ: FUA | DF,
    Command.WRITE: FUA,
    Command.FLUSH: FUA,
    Command.TRIM: FUA,
    Command.CACHE: FUA,
    Command.WRITE_ZEROES: FUA | NO_HOLE | FAST_ZERO,
    Command.BLOCK_STATUS: FUA | REQ_ONE,
}
CHANGING = (Command.WRITE, Command.WRITE, Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)
LOOKING = (Command.READ, Command.READ, Command.CACHE, Command.FLUSH, Command.BLOCK_STATUS)
LENGTHS = (0, 1, 511, 512, 513, 4095, 4096, 4097, 8192, 12_289)
# Rare, because each moves as much as thousands of the others.
LARGE = (65_536, 1 << 20, (1 << 20) + 1, (2 << 20) - 511)
LARGEST_OF_ALL = (LARGEST - 1, LARGEST, LARGEST + 1, (1 << 31), (1 << 32) - 4096, (1 << 32) - 1)


def expected_error(asked: Asked, structured: bool) -> int:
    """What the protocol, or where it leaves it open this server, answers."""
    command, flags, offset, length = asked.command, asked.flags, asked.offset, asked.length
    if command not in ALLOWED or flags & ~ALLOWED[Command(command)]:
        return EINVAL
    if command == Command.BLOCK_STATUS and not (structured and length):
        return EINVAL
    if command == Command.READ and flags & DF and not structured:
        return EINVAL
    if command == Command.FLUSH:
        return EINVAL if offset or length else 0
    if command == Command.READ and length > LARGEST:
        return EOVERFLOW
    if offset + length > SIZE:
        return ENOSPC if command in (Command.WRITE, Command.WRITE_ZEROES) else EINVAL
    return 0


class Requests:
    """Random requests that change at most [low, high)."""

    def __init__(self, rng: random.Random, low: int, high: int) -> None:
        self._rng = rng
        self._low = low
        self._high = high

    def draw(self, commands: tuple[Command, ...], structured: bool) -> Asked:
        """One; a changing one that is within the volume is within its half."""
        rng = self._rng
        while True:
            command = rng.choice(commands) if rng.random() < 0.98 else rng.choice((8, 9, 255, 65_535))
            length = self._length()
            asked = Asked(command=command, flags=self._flags(), offset=self._offset(length), length=length)
            if command == Command.FLUSH and rng.random() < 0.9:
                asked.offset = asked.length = 0
            if command == Command.WRITE and length > LARGEST:
                continue  # that ends the connection: see `hang_up`
            inside = self._low <= asked.offset and asked.offset + length <= self._high
            if inside or command not in CHANGING or expected_error(asked, structured):
                break
        if command == Command.WRITE:
            asked.payload = (
                rng.randbytes(length) if length < 1 << 16 else bytes([rng.randrange(256)]) * length
            )
        return asked

    def _length(self) -> int:
        kind = self._rng.random()
        if kind < 0.0003:
            return self._rng.choice(LARGEST_OF_ALL)
        if kind < 0.003:
            return self._rng.choice(LARGE)
        return self._rng.choice(LENGTHS)

    def _offset(self, length: int) -> int:
        rng = self._rng
        near = rng.choice((0, SIZE, HALF, self._low, rng.randrange(SIZE), rng.randrange(SIZE) & -BLOCK))
        shift = rng.choice((0, 0, 0, 1, -1, 511, 512, -512, 4095, -length, -length))
        if rng.random() < 0.02:
            near = rng.choice((1 << 63, (1 << 64) - 1, (1 << 64) - length, (1 << 64) - BLOCK, 1 << 32))
        return min(max(0, near + shift), (1 << 64) - 1)

    def _flags(self) -> int:
        kind = self._rng.random()
        if kind < 0.85:
            return self._rng.choice((0, 0, 0, 0, FUA)) if kind > 0.03 else FUA
        return self._rng.choice((DF, NO_HOLE, REQ_ONE, FAST_ZERO, 32, 1 << 15, self._rng.randrange(1 << 16)))


class Pairing:
    """A connection with its half of the volume, made again whenever the daemon had reason to close it."""

    def __init__(self, site: Site, rng: random.Random, low: int, high: int, structured: bool) -> None:
        self._site = site
        self._structured = structured
        self._rng = rng
        self.requests = Requests(rng, low, high)
        self.counts: Counter[str] = Counter()
        self.sent: list[Asked] = []
        self.host = self._connect()

    def _connect(self) -> RawHost:
        return RawHost.unix(self._site.nbd_socket, "g/v", structured=self._structured)

    def round(self, commands: tuple[Command, ...]) -> None:
        """Some requests in flight at once, each answered as it must be."""
        count = self._rng.choice((1, 3, 16, 40))
        self.sent = [self.requests.draw(commands, self._structured) for _ in range(count)]
        self.host.exchange(self.sent)
        for asked in self.sent:
            expected = expected_error(asked, self._structured)
            assert asked.error == expected, (
                asked.command,
                asked.flags,
                asked.offset,
                asked.length,
                asked.error,
            )
            self.counts[f"{asked.command}:{asked.error}"] += 1

    def hang_up(self) -> None:
        """What is no request at all ends the connection, and nothing else: a wrong magic, a WRITE too long to
        be skipped, a header or a WRITE of which the rest never comes."""
        bad = self._rng.choice(
            (
                b"\x00" * 28,
                Asked(command=Command.WRITE, length=(1 << 32) - 1).encode(1),
                Asked(command=Command.WRITE, length=LARGEST + 1, payload=b"x" * 5000).encode(1),
                Asked(command=Command.READ, length=512).encode(1)[:27],
                Asked(command=Command.WRITE, length=5000, payload=b"x" * 4999).encode(1),
                Asked(command=Command.DISC, flags=self._rng.randrange(1 << 16), offset=1, length=7).encode(1),
            )
        )
        self.host.socket.sendall(bad)
        self.host.socket.shutdown(1)  # no more comes
        self.host.until_closed()
        self.host = self._connect()
        self.counts["hung up"] += 1


def apply(content: bytearray, asked: Asked) -> None:
    """What a request that succeeded leaves."""
    offset, end = asked.offset, asked.offset + asked.length
    if asked.error or asked.command not in CHANGING:
        return
    if asked.command == Command.TRIM:
        offset, end = -(-offset // BLOCK) * BLOCK, end // BLOCK * BLOCK
    if offset < end:
        content[offset:end] = asked.payload or bytes(end - offset)


def check(content: bytearray, asked: Asked) -> None:
    """What a request that succeeded said, while nobody writes."""
    if asked.error:
        assert not asked.data or asked.command != Command.READ
    elif asked.command == Command.READ:
        assert asked.data == content[asked.offset : asked.offset + asked.length]
    elif asked.command == Command.BLOCK_STATUS:
        assert asked.extents
        assert sum(size for size, _ in asked.extents) <= asked.length
        at = asked.offset
        for size, state in asked.extents:
            if state & 2:
                assert not any(content[at : at + size])
            at += size


def together(pairs: list[Pairing], commands: tuple[Command, ...]) -> None:
    """A round on each connection at the same time."""
    failures: list[BaseException] = []

    def run(pairing: Pairing) -> None:
        try:
            pairing.round(commands)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(pairing,)) for pairing in pairs[1:]]
    for thread in threads:
        thread.start()
    run(pairs[0])
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def everything(site: Site, export: str) -> bytes:
    """A whole export."""
    with RawHost.unix(site.nbd_socket, export) as host:
        parts = [host.ask(Command.READ, at, min(16 << 20, SIZE - at)) for at in range(0, SIZE, 16 << 20)]
    assert all(part.error == 0 for part in parts)
    return b"".join(bytes(part.data) for part in parts)


def peer_is_equal(a: Site, b: Site, content: bytearray) -> None:
    """Both sites hold the oracle's bytes at one cut, and journals that end in one digest."""
    words = ["wait", "g", "--timeout", str(WAIT_S)]
    a.farshore(*words, "--state", "paired", timeout_s=WAIT_S + 60)
    cut = a.json(*words, timeout_s=WAIT_S + 60)["position"]
    for site in (a, b):
        assert everything(site, f"g/v@{cut}") == content
    one, other = newest_frame(a, "g"), newest_frame(b, "g")
    assert (one["position"], one["digest"]) == (other["position"], other["digest"])


def run_requests(site: Site, content: bytearray, count: int) -> Counter[str]:
    """So many requests; what was answered, by command and error."""
    rng = random.Random(SEED)
    pairs = [
        Pairing(site, random.Random(SEED + 1), 0, HALF, structured=True),
        Pairing(site, random.Random(SEED + 2), HALF, SIZE, structured=False),
    ]
    done = 0
    while done < count:
        commands = CHANGING if rng.random() < 0.6 else LOOKING
        together(pairs, commands)
        for pairing in pairs:
            for asked in pairing.sent:
                (apply if commands is CHANGING else check)(content, asked)
            done += len(pairing.sent)
        if rng.random() < 0.005:
            rng.choice(pairs).hang_up()
    for pairing in pairs:
        pairing.host.socket.close()
    return pairs[0].counts + pairs[1].counts


def verify_is_clean(*sites: Site) -> None:
    """At each site; a verify that looked at nothing is none. A deep one has everything indexed first."""
    for site in sites:
        found = site.json("verify", "g", "--deep", timeout_s=VERIFY_S)
        print(f"verify at {site.name}: {found['frames']} frames, {found['versions']} versions")
        assert found["ok"]
        assert found["complete"]
        assert found["frames"]
        assert found["versions"]


@pytest.mark.timeout(7200 if FULL else 300)
def test_c1_random_requests_against_an_oracle() -> None:
    content = bytearray(SIZE)
    with running_sites("a", "b", settings="window_s = 5\n") as (a, b):
        start_pair(a, b, "g/v", SIZE)
        began = time.monotonic()
        counts = run_requests(a, content, REQUESTS)
        took_s = time.monotonic() - began
        total = sum(counts.values())
        print(f"{total} requests in {took_s:.0f} s, seed {SEED}: {dict(sorted(counts.items()))}")
        # A check that tested nothing is red: each command was carried out and refused, and hung up on.
        for command in ALLOWED:
            assert counts[f"{int(command)}:0"], command
            assert counts[f"{int(command)}:{EINVAL}"], command
        assert counts["hung up"]
        assert any(content)
        assert everything(a, "g/v") == content
        peer_is_equal(a, b, content)
        verify_is_clean(a, b)
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()
        for site in (a, b):
            site.start()
        assert everything(a, "g/v") == content
        peer_is_equal(a, b, content)
        verify_is_clean(a, b)
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()
        print(f"the peer, verify and a restart: {time.monotonic() - began - took_s:.0f} s more")
