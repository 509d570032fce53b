"""The process that reads the file system in a volume for `farshore ls`, `cat` and `restore files`.

It answers what `protocol/file_stream.py` says, from standard input to standard output. It is given an NBD
connection (a file descriptor) to one export; it knows neither the site nor the target. Everything it reads
may be hostile: it is confined before it looks at the first byte, and whoever called it believes nothing of
what it says. That it is killed or crashes costs its caller the file that it was at.

python -P …/farshore/launch.py console.file_systems.reader --connection FD --size BYTES
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Iterator
from errno import EIO

from console.file_systems.confinement import confine, renew_cpu
from console.file_systems.export_reader import ExportReader
from console.file_systems.tree import Tree, text_of
from console.file_systems.volume_layout import ExportImage, file_system, partitions, signature
from protocol.errors import RemoteProtocolError
from protocol.file_stream import (
    Answer,
    Done,
    IncomingRequests,
    List,
    Look,
    Open,
    Opened,
    Read,
    Request,
    Trouble,
    encode,
)
from protocol.limits import FILE_TEXT_CHARS_MAX

_PIPE_BYTES = 64 << 10
# Entries are small: a write a piece would cost more than the entry.
_WRITE_BYTES = 64 << 10


class Answering:
    """One conversation about one export."""

    def __init__(self, reader: ExportReader, unfenced: str = "") -> None:
        """`unfenced`: what is missing of this process's confinement."""
        self._image = ExportImage(reader)
        self._unfenced = unfenced[:FILE_TEXT_CHARS_MAX]
        self._tree: Tree | None = None

    def answer(self, request: Request) -> Iterator[Answer]:
        """Raises RemoteProtocolError for what cannot be asked now; OSError if the export is gone."""
        match request:
            case Open():
                try:
                    yield self._open(request.partition)
                except ConnectionError:
                    raise
                except OSError as error:
                    yield from _failed(error)
            case List() if self._tree is not None:
                yield from self._tree.names(request.number)
            case Look() if self._tree is not None:
                yield from self._tree.look(request.number)
            case Read() if self._tree is not None:
                yield from self._tree.read(request.number)
            case _:
                raise RemoteProtocolError("asked before a file system was opened")

    def _open(self, wanted: int) -> Opened:
        image, size = self._image, self._image.reader.size_bytes
        found = file_system(image, 0) if wanted == 0 else None
        holds = "" if found else signature(image.reader, 0)
        rows = [] if found or holds else partitions(image)
        first, number = 0, 0
        readable = [row for row in rows if row.holds]
        chosen = [row for row in rows if row.number == wanted] if wanted else readable
        if len(chosen) == 1:
            first, size, number, holds = (
                chosen[0].first_byte,
                chosen[0].size_bytes,
                chosen[0].number,
                chosen[0].holds,
            )
            found = file_system(image, first)
        tree = Tree(image, found[0], found[1], first) if found else None
        if tree is not None and tree.strange:
            holds, tree = tree.kind, None
        self._tree = tree
        return Opened(
            partitions=tuple(rows),
            partition=number,
            first_byte=first,
            size_bytes=size,
            file_system=tree.kind if tree else "",
            holds=tree.kind if tree else holds,
            root=tree.root if tree else 0,
            unfinished=tree.unfinished if tree else False,
            case_folds=tree.case_folds if tree else False,
            has_owners=tree.has_owners if tree else False,
            unfenced=self._unfenced,
        )


def serve(answering: Answering, source: int, target: int) -> None:
    """Answer until `source` ends. Raises RemoteProtocolError, OSError."""
    incoming = IncomingRequests()
    while data := os.read(source, _PIPE_BYTES):
        for request in incoming.take(data):
            renew_cpu()
            _write(target, answering.answer(request))


def _write(target: int, answers: Iterator[Answer]) -> None:
    out = bytearray()
    try:
        for answer in answers:
            out += encode(answer)
            if len(out) >= _WRITE_BYTES:
                _write_all(target, out)
                out.clear()
                renew_cpu()
    except MemoryError:
        for answer in _failed(OSError(EIO, "reading it takes too much memory")):
            out += encode(answer)
    _write_all(target, out)


def _failed(error: OSError) -> Iterator[Answer]:
    yield Trouble(name=b"", text=text_of(error))
    yield Done()


def _write_all(target: int, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
    view.release()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="console.file_systems.reader")
    parser.add_argument("--connection", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    arguments = parser.parse_args()
    connection = socket.socket(fileno=arguments.connection)
    connection.setblocking(True)
    try:
        unfenced = confine()
    except OSError as error:
        sys.stderr.write(f"it cannot be confined here: {text_of(error)}\n")
        return 1
    try:
        answering = Answering(ExportReader(connection, arguments.size), unfenced)
        serve(answering, sys.stdin.fileno(), sys.stdout.fileno())
    except BrokenPipeError:
        return 0  # the caller has had enough
    except (ConnectionError, RemoteProtocolError) as error:
        sys.stderr.write(f"{text_of(error)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
