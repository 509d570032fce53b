"""A reader of file systems that was taken over: it answers what it is asked, with something wrong in it.

python -m tests.support.hostile_reader --connection FD --size BYTES; FARSHORE_HOSTILE_SEED chooses the wrong.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator

import msgspec

from protocol.errors import RemoteProtocolError
from protocol.file_stream import (
    Data,
    Done,
    Entry,
    Extents,
    IncomingRequests,
    List,
    Look,
    Message,
    Open,
    Opened,
    Request,
    Trouble,
    encode,
)
from protocol.limits import FILE_MESSAGE_BYTES_MAX

SEED = "FARSHORE_HOSTILE_SEED"
NAMES = [
    b"..",
    b".",
    b"",
    b"/etc/passwd",
    b"../../x",
    b"a\0b",
    b"\x1b]52;c;x\x07",
    b"n" * 1024,
    b"same",
    b"same",
]
TERMINAL = "\x1b]52;c;x\x07\x9b2J"
_ENDLESS = 20_000


def entry(rng: random.Random, name: bytes) -> Entry:
    """Anything that has the right types."""
    secret = rng.choice([b"security.capability", b"user.\x1b", b"trusted.x"])
    return Entry(
        name=name, number=rng.choice([1, 2, 3, rng.getrandbits(62)]), what=rng.choice("fffffffffffllbcps?d"),
        mode=rng.getrandbits(12), uid=rng.getrandbits(32), gid=rng.getrandbits(32),
        size_bytes=rng.getrandbits(62), mtime_ns=rng.getrandbits(64) - (1 << 62),
        atime_ns=-rng.getrandbits(62), links=rng.getrandbits(2),
        target=rng.choice([b"/etc/shadow", b"..", b"x" * 4096]), major=rng.getrandbits(8), minor=0,
        attributes=((secret, bytes(rng.getrandbits(8))),), lacks=(TERMINAL,) * rng.getrandbits(1),
    )  # fmt: skip


def answers(rng: random.Random, request: Request) -> Iterator[Message]:
    """What an honest one could have said."""
    match request:
        case Open():
            yield Opened(
                partitions=(), partition=0, first_byte=0, size_bytes=1 << 20, file_system="ext4",
                holds=TERMINAL, root=2, unfinished=False, case_folds=False, has_owners=True,
                unfenced=TERMINAL,
            )  # fmt: skip
        case List():
            for number in range(rng.randrange(20)):
                yield entry(rng, rng.choice([*NAMES, b"%d" % number]))
            if rng.random() < 0.3:
                yield Trouble(name=rng.choice(NAMES), text=TERMINAL)
            yield Done()
        case Look():
            found = entry(rng, rng.choice(NAMES))
            yield msgspec.structs.replace(found, what=rng.choice("dddf"))
            yield Done()
        case _:
            size = rng.randrange(5000)
            yield Extents(size_bytes=size, extents=((0, size),) if size else (), more=False)
            if size:
                yield Data(offset=0, data=rng.randbytes(size))
            yield Done()


def _flip(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw))
    return raw[:at] + rng.randbytes(rng.randrange(1, 5)) + raw[at + rng.randrange(5) :]


def _nest(rng: random.Random, _: bytes) -> bytes:
    body = b"\x91" * rng.choice([10, 1000, FILE_MESSAGE_BYTES_MAX])
    return len(body).to_bytes(4, "little") + body


# Of those at the beginning some leave whoever asked waiting for the rest.
_UNFINISHED = 3
WRONGS: list[Callable[[random.Random, bytes], bytes]] = [
    _flip,
    lambda rng, raw: raw[: rng.randrange(len(raw))],
    lambda rng, raw: (rng.getrandbits(32)).to_bytes(4, "little") + raw,
    _nest,
    lambda rng, raw: raw * rng.randrange(2, 4),
    lambda rng, raw: (rng.getrandbits(32)).to_bytes(4, "little") + raw,
    lambda rng, raw: (
        encode(rng.choice([Done(), Trouble(name=b"", text=TERMINAL), entry(rng, b"late")])) + raw
    ),
    lambda rng, raw: encode(Extents(size_bytes=1, extents=(), more=True)) * _ENDLESS,
    lambda rng, raw: encode(Trouble(name=b"", text="again")) * _ENDLESS,
    lambda rng, raw: encode(Extents(size_bytes=9, extents=((4, 4), (0, 2)), more=False)) + raw,
    lambda rng, raw: encode(Data(offset=rng.getrandbits(62), data=b"x")) + raw,
    lambda rng, raw: raw + rng.randbytes(64),
]


def main() -> None:
    rng = random.Random(os.environ[SEED])
    incoming = IncomingRequests()
    honest = rng.randrange(6)
    while data := os.read(0, 65536):
        try:
            requests = incoming.take(data)
        except RemoteProtocolError:
            return
        for request in requests:
            raw = b"".join(map(encode, answers(rng, request)))
            wrong = rng.randrange(len(WRONGS)) if honest <= 0 else len(WRONGS)
            if honest <= 0:
                raw = WRONGS[wrong](rng, raw)
            honest -= 1
            view = memoryview(raw)
            while view:
                view = view[os.write(1, view) :]
            if wrong < _UNFINISHED or (honest < 0 and rng.random() < 0.3):
                sys.exit(rng.randrange(2))


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        pass
