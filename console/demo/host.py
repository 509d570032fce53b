"""A plain NBD host: one connection, many requests in flight, and an exact account of what was acknowledged.

Other people's clients write most of the demo; none of them can say which of its writes were acknowledged when
the daemon was killed. `Ledger` can: every block that it writes names itself and its number.

Source: NBD proto.md, "Simple reply message".
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from struct import Struct
from typing import Self

from console.nbd_connection import dial, received, shake_hands
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.limits import BLOCK_BYTES
from protocol.nbd.constants import SIMPLE_REPLY_MAGIC, Command
from protocol.nbd.requests import Request, encode_request

TIMEOUT_S = 60.0
READ_BYTES = 1 << 20
DEPTH = 64
_REPLY = Struct(">IIQ")
_STAMP = Struct(">QQ")


class HostRefused(FarshoreError):
    """The server answered a request with an error; `error` is NBD's number (an errno of Linux)."""

    code = "nbd-error"

    def __init__(self, message: str, error: int) -> None:
        super().__init__(message)
        self.error = error


class Host:
    """A connection to one export over a unix socket. Raises FarshoreError if the export is refused, OSError
    if the daemon goes away."""

    def __init__(self, path: Path, export: str) -> None:
        self.export = export
        self._cookie = 0
        self._socket = dial(str(path), TIMEOUT_S)
        handshake = shake_hands(self._socket, export, structured=False)
        self.size_bytes = handshake.size_bytes
        self._received = bytearray(handshake.leftover)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say good-bye, if there is somebody to say it to."""
        try:
            self._send(Command.DISC, 0, 0)
        except OSError:
            pass
        self._socket.close()

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes, at most 32 MiB. Raises HostRefused."""
        self._send(Command.READ, offset, length)
        self._expect_success("read", offset)
        return self._exactly(length)

    def write(self, offset: int, data: bytes) -> None:
        """Acknowledged when it returns. Raises HostRefused."""
        self._send(Command.WRITE, offset, len(data), data)
        self._expect_success("write", offset)

    def flush(self) -> None:
        """Durable when it returns. Raises HostRefused."""
        self._send(Command.FLUSH, 0, 0)
        self._expect_success("flush", 0)

    def write_all(self, writes: Iterable[tuple[int, bytes]], depth: int = DEPTH) -> int:
        """Many writes, `depth` in flight; the bytes written. Raises HostRefused at the first refusal."""
        in_flight = written_bytes = 0
        for offset, data in writes:
            self._send(Command.WRITE, offset, len(data), data)
            written_bytes += len(data)
            in_flight += 1
            if in_flight >= depth:
                self._expect_success("write", offset)
                in_flight -= 1
        for _ in range(in_flight):
            self._expect_success("write", 0)
        return written_bytes

    def submit_write(self, offset: int, data: bytes) -> int:
        """Send a write without waiting; its cookie."""
        return self._send(Command.WRITE, offset, len(data), data)

    def take_reply(self) -> tuple[int, int]:
        """Cookie and error (0 for success) of the next reply to anything but a read."""
        magic, error, cookie = _REPLY.unpack(self._exactly(_REPLY.size))
        if magic != SIMPLE_REPLY_MAGIC:
            raise RemoteProtocolError(f"bad reply magic {magic:#010x}")
        return cookie, error

    def _expect_success(self, verb: str, offset: int) -> None:
        _, error = self.take_reply()
        if error:
            raise HostRefused(f"{verb} at {offset} of {self.export} was answered with error {error}", error)

    def _send(self, command: Command, offset: int, length: int, payload: bytes = b"") -> int:
        self._cookie += 1
        request = Request(
            flags=0, command=command, cookie=self._cookie, offset=offset, length=length, payload=payload
        )
        self._socket.sendall(encode_request(request))
        return self._cookie

    def _exactly(self, length: int) -> bytes:
        while len(self._received) < length:
            self._received += received(self._socket)
        data = bytes(self._received[:length])
        del self._received[:length]
        return data


class Ledger:
    """Blocks 0 to `blocks` - 1 of a volume, and which number each must hold.

    After a crash a block holds the number of its last acknowledged write or of a later one that was sent:
    never an older one, never a mix.
    """

    def __init__(self, blocks: int, rng: random.Random) -> None:
        self.acknowledged = 0
        self._blocks = blocks
        self._rng = rng
        self._number = 0
        self._held = [0] * blocks  # the last acknowledged number
        self._sent = [0] * blocks  # the last number on its way
        self._in_flight: dict[int, tuple[int, int]] = {}  # cookie to (block, number)

    def fill(self, host: Host) -> None:
        """Write every block once; all acknowledged when it returns. Raises HostRefused, OSError."""
        for block in range(self._blocks):
            self._write(host, block)
            self.take_replies(host, DEPTH - 1)
        self.take_replies(host, 0)

    def send(self, host: Host, count: int) -> None:
        """Send `count` writes to random blocks."""
        for _ in range(count):
            self._write(host, self._rng.randrange(self._blocks))

    def _write(self, host: Host, block: int) -> None:
        self._number += 1
        self._sent[block] = self._number
        cookie = host.submit_write(block * BLOCK_BYTES, _content(block, self._number))
        self._in_flight[cookie] = (block, self._number)

    def take_replies(self, host: Host, leave: int) -> None:
        """Note acknowledgements until `leave` writes are in flight. Raises HostRefused, OSError."""
        while len(self._in_flight) > leave:
            cookie, error = host.take_reply()
            block, number = self._in_flight.pop(cookie)
            if error:
                raise HostRefused(f"write to block {block} was answered with error {error}", error)
            self._held[block] = max(self._held[block], number)
            self.acknowledged += 1

    def forget_unanswered(self) -> int:
        """The connection is gone; the number of writes whose fate is open."""
        count = len(self._in_flight)
        self._in_flight.clear()
        return count

    def check(self, host: Host) -> list[str]:
        """Every block against the account; what is wrong, and from now on what is there is what must stay."""
        wrong = []
        per_read = READ_BYTES // BLOCK_BYTES
        for first in range(0, self._blocks, per_read):
            count = min(per_read, self._blocks - first)
            data = host.read(first * BLOCK_BYTES, count * BLOCK_BYTES)
            for block in range(first, first + count):
                at = (block - first) * BLOCK_BYTES
                found = data[at : at + BLOCK_BYTES]
                _, number = _STAMP.unpack_from(found)
                whole = found == (_content(block, number) if number else bytes(BLOCK_BYTES))
                if not whole or not self._held[block] <= number <= self._sent[block]:
                    expected = f"{self._held[block]} to {self._sent[block]}"
                    wrong.append(f"block {block} holds {number if whole else 'a mix'}, not {expected}")
                else:
                    self._held[block] = number
        return wrong


def _content(block: int, number: int) -> bytes:
    """A block's bytes: the pair (block, number) over and over."""
    return _STAMP.pack(block, number) * (BLOCK_BYTES // _STAMP.size)
