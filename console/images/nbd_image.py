"""An export as an image: one connection, many requests in flight, for one thread.

The server is a site's daemon, or qemu-nbd in front of a qcow2 file.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Self

from console.host_configs import Export
from console.images.image import Range
from console.nbd_connection import dial, received, shake_hands
from protocol.errors import FarshoreError, NotFound, Unreachable, UsageError
from protocol.limits import NBD_REQUEST_BYTES_MAX
from protocol.nbd.client_transmission import Answer, ClientTransmission
from protocol.nbd.constants import BASE_ALLOCATION, BlockState, Command, TransmissionFlag

TIMEOUT_S = 120.0
DEPTH = 8
# A length on the wire has 32 bits; whole blocks, and room to spare.
STATUS_BYTES_MAX = 2 << 30
ZERO_BYTES_MAX = 1 << 30


class NbdFailed(FarshoreError):
    """The server answered a request with an error."""

    code = "nbd-error"


def connect(export: Export, *contexts: str) -> NbdImage:
    """A new connection. NotFound or FarshoreError if the server refuses, Unreachable if there is none."""
    if export.tls and not export.unix:
        raise UsageError(
            f"{export.name} is only to be had over TLS",
            subject=export.name,
            next_step="run this at the site, where there is a unix socket",
        )
    try:
        connection = dial(export.unix or (export.host, export.port), TIMEOUT_S)
    except OSError as error:
        place = export.unix or f"{export.host}:{export.port}"
        raise Unreachable(
            f"nobody serves {export.name} at {place}: {error.strerror or error}",
            subject=export.name,
            next_step="`farshore status` says whether the site's daemon runs",
        ) from error
    return NbdImage(connection, export.name, *contexts)


class NbdImage:
    """See `ReadableImage` and `WritableImage`. Takes over `connection`; `contexts` besides base:allocation
    must be granted."""

    def __init__(self, connection: socket.socket, name: str, *contexts: str) -> None:
        self.name = name
        self._socket = connection
        self._socket.settimeout(TIMEOUT_S)
        self._unacknowledged: deque[Answer] = deque()
        try:
            handshake = shake_hands(connection, name, contexts=(BASE_ALLOCATION, *contexts), refusal=NotFound)
        except OSError as error:
            raise self._gone() from error
        self._contexts = {text: at for at, text in handshake.meta_contexts.items()}
        for context in contexts:
            if context not in self._contexts:
                self._socket.close()
                raise FarshoreError(f"the server of {name} does not know {context}", subject=name)
        self._size_bytes = handshake.size_bytes
        self.read_only = bool(handshake.transmission_flags & TransmissionFlag.READ_ONLY)
        self._transmission = ClientTransmission(handshake.leftover)

    @property
    def size_bytes(self) -> int:
        """See `ReadableImage.size_bytes`."""
        return self._size_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say good-bye, if there is somebody to say it to; twice is fine."""
        try:
            self._send(Command.DISC)
        except (OSError, FarshoreError):
            pass
        self._socket.close()

    # -- reading

    def data_ranges(self) -> Iterator[Range]:
        """See `ReadableImage.data_ranges`. Everything, where the server does not tell."""
        if BASE_ALLOCATION not in self._contexts:
            yield from [(0, self.size_bytes)] if self.size_bytes else []
            return
        for offset, length, flags in self.stretches(BASE_ALLOCATION):
            if not flags & BlockState.ZERO:
                yield offset, length

    def stretches(self, context: str) -> Iterator[tuple[int, int, int]]:
        """(offset, bytes, flags) of a context, neighbours with the same flags joined."""
        held: tuple[int, int, int] | None = None
        at = 0
        while at < self.size_bytes:
            answer = self._send(
                Command.BLOCK_STATUS, offset=at, length=min(STATUS_BYTES_MAX, self.size_bytes - at)
            )
            self._await(answer)
            for length, flags in answer.extents.get(self._contexts[context], []):
                kept = min(length, self.size_bytes - at)
                if held is not None and held[2] == flags:
                    held = (held[0], held[1] + kept, flags)
                else:
                    if held is not None:
                        yield held
                    held = (at, kept, flags)
                at += kept
        if held is not None:
            yield held

    def read(self, pieces: Iterable[Range]) -> Iterator[tuple[int, bytes]]:
        """See `ReadableImage.read`: some requests ahead of what is taken. `NbdFailed` names the piece."""
        waiting: deque[Answer] = deque()
        for offset, length in pieces:
            waiting.append(self._send(Command.READ, offset=offset, length=length))
            if len(waiting) >= DEPTH:
                yield self._data(waiting.popleft())
        while waiting:
            yield self._data(waiting.popleft())

    def _data(self, answer: Answer) -> tuple[int, bytes]:
        self._await(answer)
        return answer.offset, bytes(answer.data)

    # -- writing

    def write(self, offset: int, data: bytes) -> None:
        """See `WritableImage.write`. `NbdFailed` may be that of an earlier one."""
        for at in range(0, len(data), NBD_REQUEST_BYTES_MAX):
            part = data[at : at + NBD_REQUEST_BYTES_MAX]
            self._change(Command.WRITE, offset + at, len(part), part)

    def zero(self, offset: int, length: int) -> None:
        """See `WritableImage.zero`."""
        for at in range(0, length, ZERO_BYTES_MAX):
            self._change(Command.WRITE_ZEROES, offset + at, min(ZERO_BYTES_MAX, length - at), b"")

    def _change(self, command: Command, offset: int, length: int, payload: bytes) -> None:
        self._unacknowledged.append(self._send(command, offset=offset, length=length, payload=payload))
        if len(self._unacknowledged) >= DEPTH:
            self._await(self._unacknowledged.popleft())

    def flush(self) -> None:
        """See `WritableImage.flush`."""
        while self._unacknowledged:
            self._await(self._unacknowledged.popleft())
        self._await(self._send(Command.FLUSH))

    # -- the wire

    def _send(self, command: Command, offset: int = 0, length: int = 0, payload: bytes = b"") -> Answer:
        answer, data = self._transmission.request(command, offset, length, payload)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone() from error
        return answer

    def _await(self, answer: Answer) -> None:
        while not answer.done:
            self._transmission.receive(self._some())
        if answer.error:
            verb = Command(answer.command).name.lower().replace("_", " ")
            why = answer.message or f"error {answer.error}"
            group = self.name.partition("/")[0]
            raise NbdFailed(
                f"{verb} of {answer.length} bytes at {answer.offset} of {self.name} failed: {why}",
                subject=self.name,
                next_step=f"`farshore verify {group} --deep`"
                if (group := self.name.partition("/")[0])
                else "",
            )

    def _some(self) -> bytes:
        try:
            return received(self._socket)
        except OSError as error:
            raise self._gone() from error

    def _gone(self) -> Unreachable:
        return Unreachable(
            f"the server of {self.name or 'the export'} closed the connection",
            subject=self.name,
            next_step="`farshore status` says whether the site's daemon runs",
        )
