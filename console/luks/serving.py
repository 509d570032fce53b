"""An NBD server for one disk, in one thread: for the programs of one command on this machine, one after the
other.

A client that ends in the middle of a request, or sends what is none, is closed. It may wait for a client that
takes no answer: they are all of the same command.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from errno import EIO

from console.luks.disk import LuksDisk
from protocol.errors import NotFound, RemoteProtocolError
from protocol.limits import NBD_REQUEST_BYTES_MAX
from protocol.nbd.constants import REQUEST_MAGIC, Command, CommandFlag, NbdError, nbd_error
from protocol.nbd.exports import ExportInfo
from protocol.nbd.handshake import HandshakeState, ServerHandshake
from protocol.nbd.replies import done_chunk, error_reply, read_reply_header, simple_reply
from protocol.nbd.requests import REQUEST, REQUEST_BYTES, RequestCheck, request_check

RECEIVE_BYTES = 1 << 20
CLIENTS_MAX = 16
_ZEROES = bytes(1 << 20)


class OneExport:
    """The exports of a server that has one."""

    def __init__(self, export: ExportInfo) -> None:
        self._export = export

    def names(self) -> list[str]:
        """The only one."""
        return [self._export.name]

    def find(self, name: str) -> ExportInfo:
        """Raises NotFound."""
        if name != self._export.name:
            raise NotFound("there is no such export")
        return self._export


class Client:
    """One connection: bytes in, bytes out."""

    def __init__(self, disk: LuksDisk, export: ExportInfo) -> None:
        self._disk = disk
        self._read_only = export.read_only
        self._handshake = ServerHandshake(OneExport(export))
        self._buffer = bytearray()
        self._check: RequestCheck | None = None
        self._structured = False
        self.over = False

    def greeting(self) -> bytes:
        """What the server says first."""
        return self._handshake.greeting()

    def receive(self, data: bytes) -> list[bytes]:
        """The answers to what has come. Raises RemoteProtocolError."""
        if self._check is None:
            reply = self._handshake.receive(data)
            if self._handshake.state in {HandshakeState.CLOSED, HandshakeState.STARTTLS}:
                self.over = True
            result = self._handshake.result
            if result is None:
                return [reply]
            self._structured = result.structured_replies
            self._check = request_check(
                size_bytes=self._disk.size_bytes,
                read_only=self._read_only,
                structured_replies=self._structured,
                contexts=False,
            )
            self._buffer += self._handshake.leftover
            return [reply, *self._answers(self._check)]
        self._buffer += data
        return self._answers(self._check)

    def _answers(self, check: RequestCheck) -> list[bytes]:
        out: list[bytes] = []
        while not self.over and len(self._buffer) >= REQUEST_BYTES:
            magic, flags, command, cookie, offset, length = REQUEST.unpack_from(self._buffer)
            if magic != REQUEST_MAGIC:
                raise RemoteProtocolError("what came is no request")
            payload_bytes = length if command == Command.WRITE else 0
            if payload_bytes > NBD_REQUEST_BYTES_MAX:
                raise RemoteProtocolError("a write is too long")
            if len(self._buffer) < REQUEST_BYTES + payload_bytes:
                break
            payload = bytes(self._buffer[REQUEST_BYTES : REQUEST_BYTES + payload_bytes])
            del self._buffer[: REQUEST_BYTES + payload_bytes]
            if command == Command.DISC:
                self.over = True
                break
            error = check(flags, command, offset, length)
            out.append(
                self._refused(cookie, error)
                if error
                else self._done(flags, command, cookie, offset, length, payload)
            )
        return out

    def _done(self, flags: int, command: int, cookie: int, offset: int, length: int, payload: bytes) -> bytes:
        try:
            if command == Command.READ:
                data = self._disk.read(offset, length)
                return read_reply_header(cookie, offset, length, self._structured) + data
            if command == Command.WRITE_ZEROES and flags & CommandFlag.FAST_ZERO:
                return self._refused(cookie, NbdError.ENOTSUP)
            self._change(command, offset, length, payload)
            if flags & CommandFlag.FUA and not self._read_only:
                self._disk.flush()
        except ConnectionError:
            # The site went away: everything fails from now on.
            return self._refused(cookie, nbd_error(EIO))
        except OSError as error:
            return self._refused(cookie, nbd_error(error.errno))
        return done_chunk(cookie) if self._structured else simple_reply(cookie)

    def _change(self, command: int, offset: int, length: int, payload: bytes) -> None:
        match command:
            case Command.WRITE:
                self._disk.write(offset, payload)
            case Command.WRITE_ZEROES:
                for at in range(offset, offset + length, len(_ZEROES)):
                    self._disk.write(at, _ZEROES[: min(len(_ZEROES), offset + length - at)])
            case Command.FLUSH if not self._read_only:
                self._disk.flush()
            case _:
                # TRIM is not offered: where an encrypted disk holds nothing is nobody's business, and zeroes
                # in its place would be all of a disk that `mkfs` discards.
                pass

    def _refused(self, cookie: int, error: int) -> bytes:
        return error_reply(cookie, error, structured=self._structured)


class Server:
    """Serves on `listening` until `control` has ended and no client is left."""

    def __init__(self, listening: socket.socket, control: int, disk: LuksDisk, export: ExportInfo) -> None:
        self._listening = listening
        self._control = control
        self._disk = disk
        self._export = export
        self._clients: dict[int, tuple[socket.socket, Client]] = {}
        self._poll = select.poll()

    def run(self, renew: Callable[[], None]) -> None:
        """`renew` is called for each piece of work, for the time that it takes."""
        self._poll.register(self._listening, select.POLLIN)
        self._poll.register(self._control, select.POLLIN)
        held = True
        while held or self._clients:
            for descriptor, _ in self._poll.poll():
                renew()
                if descriptor == self._control:
                    self._poll.unregister(self._control)
                    held = False
                elif descriptor == self._listening.fileno():
                    self._accept()
                else:
                    self._serve(descriptor)

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        if len(self._clients) == CLIENTS_MAX:
            connection.close()
            return
        client = Client(self._disk, self._export)
        self._clients[connection.fileno()] = (connection, client)
        self._poll.register(connection, select.POLLIN)
        self._send(connection.fileno(), [client.greeting()])

    def _serve(self, descriptor: int) -> None:
        connection, client = self._clients[descriptor]
        try:
            data = connection.recv(RECEIVE_BYTES)
            replies = client.receive(data) if data else []
        except (OSError, RemoteProtocolError):
            self._close(descriptor)
            return
        self._send(descriptor, replies)
        if descriptor in self._clients and (not data or client.over):
            self._close(descriptor)

    def _send(self, descriptor: int, replies: list[bytes]) -> None:
        connection, _ = self._clients[descriptor]
        try:
            for reply in replies:
                connection.sendall(reply)
        except OSError:
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        connection, _ = self._clients.pop(descriptor)
        self._poll.unregister(descriptor)
        connection.close()
