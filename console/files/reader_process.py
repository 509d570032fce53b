"""Starting, asking and ending the process that reads a file system; and disbelieving it.

A reader that crashes, is killed or says what cannot be costs the directory or file that it was at: it is
started anew for the next. What never ends is ended: a reader that says nothing for a while, a directory with
too many names, a file whose extents run backwards.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections import deque
from collections.abc import Iterator
from typing import IO, Self

import msgspec

from console.files.export_connection import connect
from console.files.source import Failed, Path
from console.host_configs import Export
from farshore.children import child_words
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.file_stream import (
    Answer,
    Data,
    Done,
    Entry,
    Extents,
    IncomingAnswers,
    List,
    Look,
    Open,
    Opened,
    Read,
    Request,
    Trouble,
    encode,
    shown,
)
from protocol.limits import (
    FILE_DIRECTORY_BYTES_MAX,
    FILE_ENTRIES_IN_DIRECTORY_MAX,
    FILE_EXTENTS_MAX,
    FILE_TEXT_CHARS_MAX,
)
from protocol.printable import printable

MODULE = "console.file_systems.reader"
SILENCE_S_MAX = 120.0
STARTS_MAX = 64
_PIPE_BYTES = 1 << 20
_END_TIMEOUT_S = 5.0


class ReaderProcess:
    """One export's file system. Raises FarshoreError if there is none, or none that can be read."""

    def __init__(self, export: Export, *, partition: int = 0, module: str = MODULE) -> None:
        """`module` is what is started."""
        self._export = export
        self._module = module
        self._partition = partition
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._incoming = IncomingAnswers()
        self._waiting: deque[Answer] = deque()
        self._root: Entry | None = None
        self._opened = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def opened(self) -> Opened:
        """What was found in the volume."""
        return self._opened

    def root(self) -> Entry:
        """The root directory. Where what it is itself cannot be read it is one like any, and says so."""
        if self._root is None:
            try:
                self._root = self._look(self._opened.root)
            except Failed as error:
                self._root = Entry(
                    name=b"", number=self._opened.root, what="d", mode=0o755, uid=0, gid=0, size_bytes=0,
                    mtime_ns=0, atime_ns=0, links=1, target=b"", major=0, minor=0, attributes=(),
                    lacks=(f"what it is itself: {error.message}"[:FILE_TEXT_CHARS_MAX],),
                )  # fmt: skip
        return self._root

    def names(self, path: Path, entry: Entry) -> tuple[list[Entry], list[tuple[bytes, str]]]:
        """A directory's entries, and what did not come. Raises Failed."""
        entries: list[Entry] = []
        troubles: list[tuple[bytes, str]] = []
        held_bytes = 0
        for answer in self._ask(List(number=entry.number), path):
            match answer:
                case Entry():
                    entries.append(_printable_entry(answer))
                case Trouble():
                    troubles.append((answer.name, printable(answer.text)))
                case Done():
                    break
                case _:
                    raise self._nonsense(path)
            held_bytes += _held_bytes(answer)
            if len(entries) + len(troubles) >= FILE_ENTRIES_IN_DIRECTORY_MAX:
                self._kill()
                troubles.append((b"", f"it has more than {FILE_ENTRIES_IN_DIRECTORY_MAX} names"))
                break
            if held_bytes > FILE_DIRECTORY_BYTES_MAX:
                self._kill()
                troubles.append((b"", f"its names and attributes take more than {held_bytes} bytes"))
                break
        return entries, troubles

    def content(self, path: Path, entry: Entry) -> Iterator[Extents | Data]:
        """One `Extents`, then the data that they promise, all of it. Raises Failed."""
        answers = self._ask(Read(number=entry.number), path)
        try:
            whole = self._extents(answers, path)
            yield whole
            left = deque(whole.extents)
            start, length = left.popleft() if left else (0, 0)
            for answer in answers:
                match answer:
                    case Data() if answer.offset == start and 0 < len(answer.data) <= length:
                        yield answer
                        start, length = start + len(answer.data), length - len(answer.data)
                        if not length and left:
                            start, length = left.popleft()
                    case Done() if not length:
                        return
                    case Trouble():
                        self._until_done(answers, path)
                        raise Failed(printable(answer.text))
                    case _:
                        raise self._nonsense(path)
        except GeneratorExit:
            # The rest of it is on its way and would be taken for the next answer.
            self._kill()
            raise

    def close(self) -> None:
        """End the process; twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _look(self, number: int) -> Entry:
        """What a directory is itself. Raises Failed."""
        answers = self._ask(Look(number=number), ())
        answer = next(answers)
        if isinstance(answer, Entry) and answer.what == "d":
            self._until_done(answers, ())
            # Which one it is and what it is called was asked, and is not for the answer to say.
            return msgspec.structs.replace(_printable_entry(answer), name=b"", number=number)
        if isinstance(answer, Trouble):
            self._until_done(answers, ())
            raise Failed(printable(answer.text))
        raise self._nonsense(())

    def _extents(self, answers: Iterator[Answer], path: Path) -> Extents:
        found: list[tuple[int, int]] = []
        end = 0
        for answer in answers:
            match answer:
                case Extents():
                    for start, length in answer.extents:
                        if start < end or not length or start + length > answer.size_bytes:
                            raise self._nonsense(path)
                        end = start + length
                        found.append((start, length))
                    if len(found) > FILE_EXTENTS_MAX:
                        raise self._nonsense(path)
                    if not answer.more:
                        return Extents(size_bytes=answer.size_bytes, extents=tuple(found), more=False)
                    if not answer.extents:
                        # It would be asked for more for ever.
                        raise self._nonsense(path)
                case Trouble():
                    self._until_done(answers, path)
                    raise Failed(printable(answer.text))
                case _:
                    raise self._nonsense(path)
        raise self._nonsense(path)

    def _until_done(self, answers: Iterator[Answer], path: Path) -> None:
        for answer in answers:
            if isinstance(answer, Done):
                return
            raise self._nonsense(path)

    def _start(self) -> Opened:
        """A new process that has opened the file system."""
        self._starts += 1
        if self._starts > STARTS_MAX:
            raise FarshoreError(
                f"{self._export.name}: its reader ended {STARTS_MAX} times; the rest is left out",
                subject=self._export.name,
                next_step="restore fewer paths at a time",
            )
        connection, size_bytes = connect(self._export)
        with connection:
            descriptor = connection.fileno()
            options = ("--connection", str(descriptor), "--size", str(size_bytes))
            self._process = subprocess.Popen(
                child_words(self._module, *options),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        self._incoming, self._waiting = IncomingAnswers(), deque()
        for answer in self._ask(Open(partition=self._partition), ()):
            if isinstance(answer, Opened):
                return _printable_opened(answer)
            why = answer.text if isinstance(answer, Trouble) else "its reader makes no sense"
            self._kill()
            raise FarshoreError(
                f"{self._export.name} cannot be read: {printable(why)}",
                subject=self._export.name,
                next_step="farshore verify GROUP --deep",
            )
        raise self._nonsense(())

    def _ask(self, request: Request, path: Path) -> Iterator[Answer]:
        """The answers as they come; whoever asks stops at the last. Raises Failed."""
        if self._process is None:
            self._start()
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise FarshoreError("the reader of file systems did not start")
        try:
            process.stdin.write(encode(request))
            process.stdin.flush()
            while True:
                while self._waiting:
                    yield self._waiting.popleft()
                data = self._received(process.stdout, path)
                if not data:
                    raise self._ended(path)
                self._waiting.extend(self._incoming.take(data))
        except BrokenPipeError:
            raise self._ended(path) from None
        except RemoteProtocolError as error:
            raise self._nonsense(path) from error

    def _received(self, pipe: IO[bytes], path: Path) -> bytes:
        ready, _, _ = select.select([pipe], [], [], SILENCE_S_MAX)
        if not ready:
            self._kill()
            raise Failed(f"its reader said nothing for {SILENCE_S_MAX:g} s", subject=_text(path))
        return os.read(pipe.fileno(), _PIPE_BYTES)

    def _ended(self, path: Path) -> Failed:
        """Why the process is gone."""
        process = self._process
        said, code = b"", None
        if process is not None:
            code = process.wait()
            said = process.stderr.read(4096) if process.stderr is not None else b""
        self._kill()
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        else:
            last = shown(said.strip().rsplit(b"\n", 1)[-1])
            how = f"ended: {last[:200]}" if last else "ended"
        return Failed(f"its reader {how}", subject=_text(path))

    def _nonsense(self, path: Path) -> Failed:
        self._kill()
        return Failed("its reader says what cannot be", subject=_text(path))

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        self.close()


def _held_bytes(answer: Entry | Trouble) -> int:
    """Of what the answer's sender chose the length of."""
    if isinstance(answer, Trouble):
        return len(answer.name) + len(answer.text)
    attributes = sum(len(name) + len(value) for name, value in answer.attributes)
    return len(answer.name) + len(answer.target) + attributes + sum(map(len, answer.lacks))


def _printable_entry(entry: Entry) -> Entry:
    if not entry.lacks:
        return entry
    return msgspec.structs.replace(entry, lacks=tuple(map(printable, entry.lacks)))


def _printable_opened(opened: Opened) -> Opened:
    """Its words are shown to people, and a reader that was taken over chooses them."""
    rows = tuple(
        msgspec.structs.replace(row, text=printable(row.text), holds=printable(row.holds))
        for row in opened.partitions
    )
    return msgspec.structs.replace(
        opened,
        partitions=rows,
        file_system=printable(opened.file_system),
        holds=printable(opened.holds),
        unfenced=printable(opened.unfenced),
    )


def _text(path: Path) -> str:
    return "/" + shown(b"/".join(path))
