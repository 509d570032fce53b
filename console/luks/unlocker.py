"""The process that opens an encrypted volume and serves what is inside, until its caller and its clients are
gone.

It is given an NBD connection to one export, a socket to serve on, and the key by standard input: four bytes
of length (little-endian), then the key. It answers with one line:

    ok BYTES            served now: so many bytes
    key                 no key slot opens with this key
    unreadable TEXT     why it cannot be opened
    unfenced TEXT       before any of those: what is missing of its confinement

Headers are a stranger's: it is confined before it reads the first byte, as the reader of file systems is. The
key is in its memory only, which no other process of its user may look into, and which is in no core dump.

python -P …/farshore/launch.py console.luks.unlocker --connection FD --size BYTES --first BYTE --bytes BYTES
    --listening FD --name EXPORT [--read-only]
"""

from __future__ import annotations

import argparse
import socket
import sys
from io import FileIO

from console.file_systems.confinement import confine, renew_cpu
from console.file_systems.export_reader import ExportReader
from console.file_systems.syscall_filter import SERVING
from console.luks.ciphers import SectorCipher
from console.luks.disk import LuksDisk
from console.luks.header import SECTOR_BYTES, read_header
from console.luks.opening import volume_key
from console.luks.secret import SECRET_BYTES_MAX, wipe
from console.luks.serving import Server
from console.luks.unreadable import Unreadable, WrongKey
from protocol.errors import RemoteProtocolError
from protocol.nbd.exports import ExportInfo

LENGTH_BYTES = 4
PLAIN_REQUEST_BYTES_MAX = 1 << 20


class Stretch:
    """A part of an export, from its first byte on."""

    def __init__(self, reader: ExportReader, first_byte: int, size_bytes: int) -> None:
        self._reader = reader
        self._first_byte = first_byte
        self.size_bytes = size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Past its end are zeroes. Raises OSError."""
        there = max(0, min(length, self.size_bytes - offset))
        return self._reader.read(self._first_byte + offset, there) + bytes(length - there)

    def write(self, offset: int, data: bytes) -> None:
        """Raises OSError."""
        self._reader.write(self._first_byte + offset, data)

    def flush(self) -> None:
        """Raises OSError."""
        self._reader.flush()


def unlocked(below: Stretch, secret: bytearray) -> LuksDisk:
    """What is inside. Raises Unreadable, WrongKey, OSError."""
    try:
        luks = read_header(below.read)
        room = below.size_bytes - luks.first_byte
        size_bytes = luks.size_bytes or room // luks.sector_bytes * luks.sector_bytes
        if room <= 0 or size_bytes > room:
            raise Unreadable("it is longer than what it lies in")
        if size_bytes % SECTOR_BYTES or not size_bytes:
            raise Unreadable("there is nothing in it")
        key = volume_key(luks, below.read, secret, renew=renew_cpu)
    finally:
        wipe(secret)
    cipher = SectorCipher(luks.cipher, key, sector_bytes=luks.sector_bytes, first=luks.iv_first)
    return LuksDisk(below, cipher, luks.first_byte, size_bytes)


def _secret(source: FileIO) -> bytearray:
    """Of the length that it comes with. Raises RemoteProtocolError."""
    length = int.from_bytes(_exactly(source, LENGTH_BYTES), "little")
    if length > SECRET_BYTES_MAX:
        raise RemoteProtocolError("the key is too long")
    return _exactly(source, length)


def _exactly(source: FileIO, length: int) -> bytearray:
    data, done = bytearray(length), 0
    with memoryview(data) as view:
        while done < length:
            count = source.readinto(view[done:])
            if not count:
                raise RemoteProtocolError("the key ends early")
            done += count
    return data


def _say(text: str) -> None:
    sys.stdout.write(text.replace("\n", " ") + "\n")
    sys.stdout.flush()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="console.luks.unlocker")
    for name in ("--connection", "--size", "--first", "--bytes", "--listening"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--read-only", action="store_true")
    words = parser.parse_args()
    source = FileIO(sys.stdin.fileno(), closefd=False)
    connection = socket.socket(fileno=words.connection)
    listening = socket.socket(fileno=words.listening)
    for each in (connection, listening):
        each.setblocking(True)
    try:
        unfenced = confine(SERVING)
    except OSError as error:
        _say(f"unreadable what opens it cannot be confined here: {error.strerror or error}")
        return 1
    if unfenced:
        _say(f"unfenced {unfenced}")
    below = Stretch(ExportReader(connection, words.size), words.first, words.bytes)
    try:
        disk = unlocked(below, _secret(source))
    except WrongKey:
        _say("key")
        return 1
    except Unreadable as error:
        _say(f"unreadable {error}")
        return 1
    except MemoryError:
        _say("unreadable opening it takes too much memory")
        return 1
    except (OSError, RemoteProtocolError) as error:
        _say(f"unreadable it cannot be read: {error}")
        return 1
    export = ExportInfo(
        name=words.name,
        size_bytes=disk.size_bytes,
        read_only=words.read_only,
        trims=False,
        meta_contexts=(),
        block_bytes_max=PLAIN_REQUEST_BYTES_MAX,
    )
    _say(f"ok {disk.size_bytes}")
    Server(listening, source.fileno(), disk, export).run(renew_cpu)
    return 0


if __name__ == "__main__":
    sys.exit(main())
