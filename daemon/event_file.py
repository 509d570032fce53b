"""Events on disk, over restarts: the audit log.

    events/NUMBER.jsonl     NUMBER: of the first event in it, 20 digits

One event a line, as `farshore events --json` has it. A file that is full is followed by another, and the
oldest goes. What cannot be read is passed over: a power loss leaves a torn last line, which the next start
cuts off.

Nobody waits for it: a thread writes what is queued and makes it durable. On a full or failing disk it tries
again, in the same place; what does not fit into the queue meanwhile is missing, which its number shows.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import msgspec

from engine.ports.disk import Disk, DiskFile
from protocol.commands.event import EventInfo
from protocol.limits import EVENT_FILE_BYTES_MAX, EVENT_FILES_MAX, EVENTS_UNKEPT_MAX, LOG_STOP_S

DIRECTORY = "events"
ENDING = ".jsonl"
RETRY_S = 5.0
BATCH_MAX = 256

_DECODER = msgspec.json.Decoder(EventInfo)


class EventFile:
    """The events of one data directory, whose `disk` has no loop. `on_failed` is told, in the thread, why
    nothing can be written, once until it can be again."""

    def __init__(
        self, disk: Disk, on_failed: Callable[[str], None] = lambda _: None, *, retry_s: float = RETRY_S
    ) -> None:
        self._disk = disk
        self._on_failed = on_failed
        self._retry_s = retry_s
        self._queue: queue.SimpleQueue[EventInfo | threading.Event] = queue.SimpleQueue()
        self._file: DiskFile | None = None
        self._end_bytes = 0
        self._failed = False
        self._ending = threading.Event()
        # Not waited for at the end of the process: its disk may hang.
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def keep(self, event: EventInfo) -> None:
        """Queue an event to be written. Never blocks or raises."""
        if self._queue.qsize() < EVENTS_UNKEPT_MAX:
            self._queue.put(event)

    def close(self) -> None:
        """Write what is queued, if it goes at once."""
        written = threading.Event()
        self._ending.set()
        self._queue.put(written)
        written.wait(LOG_STOP_S)

    def newest(self, limit: int) -> list[EventInfo]:
        """The newest events that were kept, oldest first. OSError."""
        found: list[EventInfo] = []
        for name in reversed(self._names()):
            found = [*self._events_of(name), *found]
            if len(found) >= limit:
                break
        return found[-limit:]

    def after(self, seq: int, limit: int) -> list[EventInfo]:
        """Events with a higher number, oldest first. OSError."""
        names = self._names()
        first = max((at for at, name in enumerate(names) if _number(name) <= seq + 1), default=0)
        found: list[EventInfo] = []
        for name in names[first:]:
            found += [event for event in self._events_of(name) if event.seq > seq]
            if len(found) >= limit:
                break
        return found[:limit]

    # -- reading

    def _names(self) -> list[str]:
        return [name for name in self._disk.list_directory(DIRECTORY) if _number(name) > 0]

    def _events_of(self, name: str) -> Iterator[EventInfo]:
        try:
            data = self._disk.read_file(f"{DIRECTORY}/{name}")
        except FileNotFoundError:  # it was the oldest, and has just gone
            return
        for line in data.split(b"\n"):
            try:
                yield _DECODER.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue

    # -- writing, in the thread

    def _run(self) -> None:
        while True:
            batch, asked = self._next_batch()
            while batch and not self._written(batch) and not self._ending.wait(self._retry_s):
                pass
            for each in asked:
                each.set()

    def _next_batch(self) -> tuple[list[EventInfo], list[threading.Event]]:
        batch: list[EventInfo] = []
        asked: list[threading.Event] = []
        each = self._queue.get()
        while True:
            if isinstance(each, threading.Event):
                asked.append(each)
            else:
                batch.append(each)
            if len(batch) >= BATCH_MAX or self._queue.empty():
                return batch, asked
            each = self._queue.get()

    def _written(self, batch: list[EventInfo]) -> bool:
        try:
            self._write(batch)
        except OSError as error:
            if not self._failed:
                self._failed = True
                self._on_failed(str(error))
            return False
        self._failed = False
        return True

    def _write(self, batch: list[EventInfo]) -> None:
        data = b"".join(msgspec.json.encode(event) + b"\n" for event in batch)
        file = self._file or self._open(batch[0].seq)
        if self._end_bytes and self._end_bytes + len(data) > EVENT_FILE_BYTES_MAX:
            file = self._begin(batch[0].seq)
        file.pwrite(data, self._end_bytes)
        self._disk.sync([file], [])
        self._end_bytes += len(data)

    def _open(self, seq: int) -> DiskFile:
        """The newest file, less a torn last line; a new one if there is none."""
        names = self._names()
        if not names:
            return self._begin(seq)
        file = self._disk.open(f"{DIRECTORY}/{names[-1]}")
        whole = file.pread(file.size(), 0).rstrip(b"\0").rfind(b"\n") + 1
        file.truncate(whole)
        self._file, self._end_bytes = file, whole
        return file

    def _begin(self, seq: int) -> DiskFile:
        """A new file, and room for it."""
        names = self._names()
        for name in names[: max(0, len(names) + 1 - EVENT_FILES_MAX)]:
            self._disk.remove(f"{DIRECTORY}/{name}")
        self._disk.make_directory(DIRECTORY)
        path = f"{DIRECTORY}/{seq:020d}{ENDING}"
        self._disk.replace_file(path, b"")
        if self._file is not None:
            self._file.close()
        self._file, self._end_bytes = self._disk.open(path), 0
        return self._file


def _number(name: str) -> int:
    """Of a file's first event; 0 if it is none of ours."""
    digits, ending = name[: -len(ENDING)], name[-len(ENDING) :]
    return int(digits) if ending == ENDING and len(digits) == 20 and digits.isdecimal() else 0
