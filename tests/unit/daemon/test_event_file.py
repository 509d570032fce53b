"""Events outlive the process: numbers go on, a torn line and a full disk hurt nobody, and who is said."""

from __future__ import annotations

import asyncio
import errno
import functools
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import ParamSpec

import pytest

from daemon.audit import audited
from daemon.event_file import DIRECTORY, EventFile
from daemon.event_log import EventLog
from engine.acting import acting, actor
from engine.ports.clock import SystemClock
from engine.ports.durable import RealDisk
from protocol.commands.event import EventInfo
from protocol.commands.peer import PeerAdd
from protocol.commands.role import Takeover
from protocol.commands.site import SiteStatus
from protocol.errors import Unsafe
from protocol.limits import EVENT_FILE_BYTES_MAX, EVENT_FILES_MAX, EVENT_TEXT_CHARS_MAX, EVENTS_UNKEPT_MAX

PATIENCE_S = 20.0
P = ParamSpec("P")


def in_loop(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run a test on a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def event_log(directory: Path) -> EventLog:
    log = EventLog(
        SystemClock(asyncio.get_running_loop()), EventFile(RealDisk(directory, None), retry_s=0.002)
    )
    log.take_up()
    return log


def kinds(events: list[EventInfo]) -> list[str]:
    return [event.kind for event in events]


@in_loop
async def test_events_are_there_after_a_restart_with_their_numbers_types_and_who(tmp_path: Path) -> None:
    log = event_log(tmp_path)
    with acting("uid:1000"):
        log.emit("backup.created", group="g", object="g/v", position="1:2", bytes=7, ok=True, span_s=0.5)
    log.close()
    again = event_log(tmp_path)
    again.emit("site.started")
    first, stopped, started = again.since(None, 10)[0]
    assert (first.seq, first.kind, first.by) == (1, "backup.created", "uid:1000")
    assert first.fields == {"bytes": 7, "ok": True, "span_s": 0.5}
    assert (stopped.kind, stopped.by, started.seq) == ("site.stopped", "", 3)
    again.close()


@in_loop
async def test_after_a_kill_no_number_is_given_twice(tmp_path: Path) -> None:
    log = event_log(tmp_path)
    log.emit("one")
    kept = EventFile(RealDisk(tmp_path, None))
    until(lambda: kinds(kept.newest(1)) == ["one"])
    again = event_log(tmp_path)
    again.emit("two")
    assert [event.seq for event in again.since(0, 10)[0]] == [1, 2 + EVENTS_UNKEPT_MAX]
    again.close()


@pytest.mark.parametrize("torn", [b'{"seq":2,"time"', b"\0" * 100, b"\xff\xfe{}\n"])
@in_loop
async def test_a_torn_last_line_is_passed_over_and_cut_off(tmp_path: Path, torn: bytes) -> None:
    log = event_log(tmp_path)
    log.emit("one")
    log.close()
    (path,) = (tmp_path / DIRECTORY).iterdir()
    path.write_bytes(path.read_bytes() + torn)
    again = event_log(tmp_path)
    again.emit("two")
    again.close()
    assert kinds(event_log(tmp_path).since(None, 10)[0]) == ["one", "site.stopped", "two", "site.stopped"]


class FullDisk(RealDisk):
    """A disk that has no room as long as the test says so."""

    full = True

    def replace_file(self, path: str, data: bytes, mode: int = 0o600) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no room")
        super().replace_file(path, data, mode)


def test_a_full_disk_is_said_once_and_costs_what_does_not_fit(tmp_path: Path) -> None:
    disk, said, told = FullDisk(tmp_path, None), list[str](), threading.Event()

    def failed(error: str) -> None:
        said.append(error)
        told.set()

    keeper = EventFile(disk, failed, retry_s=0.002)

    def event(seq: int) -> EventInfo:
        return EventInfo(
            seq=seq, time="", level="info", kind="k", group=None, object="", position="", message=""
        )

    for seq in range(1, 3 * EVENTS_UNKEPT_MAX):
        keeper.keep(event(seq))  # returns at once
    assert told.wait(PATIENCE_S)
    disk.full = False
    until(lambda: len(keeper.after(0, 10_000)) >= EVENTS_UNKEPT_MAX)
    keeper.keep(event(10_000))
    keeper.close()
    found = [each.seq for each in keeper.after(0, 10_000)]
    assert found == sorted(found)
    assert found[-1] == 10_000
    assert len(said) == 1


def test_old_files_go_and_numbers_are_found(tmp_path: Path) -> None:
    keeper = EventFile(RealDisk(tmp_path, None))
    text = "x" * (EVENT_FILE_BYTES_MAX // 4)
    count = 4 * EVENT_FILES_MAX
    for seq in range(1, count + 1):
        keeper.keep(
            EventInfo(
                seq=seq, time="", level="info", kind="k", group=None, object="", position="", message=text
            )
        )
        until(lambda seq=seq: keeper._queue.empty())  # type: ignore[misc]
    keeper.close()
    until(lambda: keeper.newest(1)[0].seq == count)
    assert len(list((tmp_path / DIRECTORY).iterdir())) == EVENT_FILES_MAX
    assert sum(path.stat().st_size for path in (tmp_path / DIRECTORY).iterdir()) <= (
        EVENT_FILES_MAX * EVENT_FILE_BYTES_MAX
    )
    first = keeper.after(0, 1)[0].seq
    assert first > 1
    assert [event.seq for event in keeper.after(count - 5, 3)] == [count - 4, count - 3, count - 2]


@in_loop
async def test_what_the_list_lacks_is_read_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.event_log.EVENTS_KEPT_MAX", 5)
    monkeypatch.setattr("daemon.event_log.EVENTS_OF_A_KIND_MIN", 1)
    log = event_log(tmp_path)
    for number in range(20):
        log.emit("k", number=number)
    log.close()
    found, following, missed = await log.look_up(2, 4)
    assert ([event.seq for event in found], following, missed) == ([3, 4, 5, 6], 6, False)
    assert (await log.look_up(20, 4))[0][-1].kind == "site.stopped"


@in_loop
async def test_what_a_command_begins_is_not_said_of_it_once_it_is_over() -> None:
    said: list[str] = []
    later = asyncio.Event()

    async def begun() -> None:
        said.append(actor())
        await later.wait()
        said.append(actor())

    with acting("uid:1"):
        task = asyncio.ensure_future(begun())
        await asyncio.sleep(0)
        with acting("peer:b"):
            said.append(actor())
        said.append(actor())
    later.set()
    await task
    assert [*said, actor()] == ["uid:1", "peer:b", "uid:1", "", ""]


@in_loop
async def test_every_command_that_changes_something_leaves_an_event_without_what_may_be_secret() -> None:
    said: list[tuple[str, dict[str, object]]] = []

    def emit(kind: str, **fields: object) -> None:
        said.append((kind, fields))

    async def work(error: Exception | None = None) -> int:
        if error is not None:
            raise error
        return 1

    assert await audited(emit, SiteStatus(), work()) == 1
    assert await audited(emit, Takeover(group="g", plan=True), work()) == 1
    assert said == []
    await audited(emit, PeerAdd(token="a-secret-token"), work())
    with pytest.raises(Unsafe):
        await audited(emit, Takeover(group="g"), work(Unsafe("no")))
    assert said == [
        ("command.done", {"group": "", "object": "", "command": "peer.add", "outcome": "done"}),
        ("command.failed", {"group": "g", "object": "", "command": "takeover", "outcome": "unsafe"}),
    ]


@in_loop
async def test_fields_are_bounded(tmp_path: Path) -> None:
    log = event_log(tmp_path)
    log.emit("k", text="y" * (2 * EVENT_TEXT_CHARS_MAX), number=1 << 70)
    fields = log.since(None, 1)[0][0].fields
    assert fields == {"text": "y" * EVENT_TEXT_CHARS_MAX, "number": str(1 << 70)}
    log.close()
