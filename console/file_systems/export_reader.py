"""Reading an export over an NBD connection whose handshake is done, one request at a time, for a process that
has nothing but this connection; and writing it, for the one that opens an encrypted volume.

Source: NBD proto.md, "Simple reply message".
"""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from struct import Struct

from protocol.errors import RemoteProtocolError
from protocol.limits import NBD_REQUEST_BYTES_MAX
from protocol.nbd.constants import SIMPLE_REPLY_MAGIC, Command
from protocol.nbd.requests import Request, encode_request

# Small reads of a file system lie close together: an inode, and the next one.
CHUNK_BYTES = 128 << 10
CHUNKS_KEPT = 256

_REPLY = Struct(">IIQ")


class ExportReader:
    """`size_bytes` as the handshake said. Reads past the end give zeroes."""

    def __init__(self, connection: socket.socket, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._connection = connection
        self._cookie = 0
        self._chunks: OrderedDict[int, bytes] = OrderedDict()

    def read(self, offset: int, length: int) -> bytes:
        """Raises OSError: of the errno that the site answered with, or ConnectionError if it went away."""
        if offset < 0 or length < 0:
            raise OSError(0, "a read before the beginning")
        wanted = max(0, min(length, self.size_bytes - offset))
        if wanted == 0:
            return bytes(length)
        if wanted > CHUNK_BYTES:
            data = b"".join(
                self._fetch(start, min(NBD_REQUEST_BYTES_MAX, offset + wanted - start))
                for start in range(offset, offset + wanted, NBD_REQUEST_BYTES_MAX)
            )
        else:
            first = offset - offset % CHUNK_BYTES
            data = b"".join(self._chunk(start) for start in range(first, offset + wanted, CHUNK_BYTES))[
                offset - first : offset - first + wanted
            ]
        return data if len(data) == length else data + bytes(length - len(data))

    def write(self, offset: int, data: bytes) -> None:
        """Of at most `NBD_REQUEST_BYTES_MAX`, within the export. Raises as `read`."""
        first = offset - offset % CHUNK_BYTES
        for start in range(first, offset + len(data), CHUNK_BYTES):
            self._chunks.pop(start, None)
        self._ask(Command.WRITE, offset, len(data), data)

    def flush(self) -> None:
        """What was written is durable. Raises as `read`."""
        self._ask(Command.FLUSH, 0, 0)

    def _chunk(self, start: int) -> bytes:
        held = self._chunks.get(start)
        if held is None:
            held = self._fetch(start, min(CHUNK_BYTES, self.size_bytes - start))
            self._chunks[start] = held
            if len(self._chunks) > CHUNKS_KEPT:
                self._chunks.popitem(last=False)
        else:
            self._chunks.move_to_end(start)
        return held

    def _fetch(self, offset: int, length: int) -> bytes:
        self._ask(Command.READ, offset, length)
        return self._exactly(length)

    def _ask(self, command: Command, offset: int, length: int, payload: bytes = b"") -> None:
        """One request, and the head of its answer."""
        self._cookie += 1
        request = Request(
            flags=0, command=command, cookie=self._cookie, offset=offset, length=length, payload=payload
        )
        self._connection.sendall(encode_request(request))
        magic, error, cookie = _REPLY.unpack(self._exactly(_REPLY.size))
        if magic != SIMPLE_REPLY_MAGIC or cookie != self._cookie:
            raise RemoteProtocolError("the site's answer makes no sense")
        if error:
            raise OSError(error, os.strerror(error))

    def _exactly(self, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        done = 0
        while done < length:
            count = self._connection.recv_into(view[done:])
            if count == 0:
                raise ConnectionResetError("the site closed the connection")
            done += count
        return bytes(data)
