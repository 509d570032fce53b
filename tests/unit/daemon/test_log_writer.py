"""C30: whatever reads the log, at any speed or not at all, whoever writes it goes on at once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from daemon.log_writer import LogStream, LogWriter, fill_standard_descriptors, keep_from_blocking, relay

PATIENCE_S = 10.0
LINES = 5000
LINE = b"x" * 99 + b"\n"


def lost(count: int) -> bytes:
    return b"lost %d\n" % count


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """Its two ends. The one that is written to stays open: the writer's thread has it for good."""
    ends = list(os.pipe())
    yield ends
    if ends[0] >= 0:
        os.close(ends[0])


def drained(descriptor: int, found: bytearray, end: bytes) -> bytes:
    """All that comes up to `end`."""
    while not found.endswith(end):
        found += os.read(descriptor, 1 << 16)
    return bytes(found)


def test_c30_what_a_stopped_reader_does_not_take_is_counted_and_said_once_it_reads_again(
    pipe: list[int],
) -> None:
    writer = LogWriter(pipe[1], lost, bytes_max=100_000)
    for _ in range(LINES):  # more than pipe and queue hold: to wait for the reader would never end
        writer.write(LINE)
    assert 0 < writer.dropped < LINES
    dropped = writer.dropped
    found = bytearray()
    while found.count(LINE) < LINES - dropped:
        found += os.read(pipe[0], 1 << 16)
    writer.write(b"again\n")
    said = drained(pipe[0], found, b"again\n")
    assert sum(int(line[5:]) for line in said.split(b"\n") if line.startswith(b"lost ")) == dropped
    assert said.count(LINE) == LINES - dropped


def test_c30_a_dead_reader_costs_lines_and_nothing_else(pipe: list[int]) -> None:
    writer = LogWriter(pipe[1], lost, retry_s=0.001)
    os.close(pipe[0])
    pipe[0] = -1
    for _ in range(10):
        writer.write(LINE)
    until(lambda: writer.dropped == 10)
    writer.close()


def test_c30_a_descriptor_that_somebody_made_non_blocking_takes_every_line(pipe: list[int]) -> None:
    os.set_blocking(pipe[1], False)
    writer = LogWriter(pipe[1], lost)
    for _ in range(LINES):
        writer.write(LINE)
    writer.write(b"last\n")
    said = drained(pipe[0], bytearray(), b"last\n")
    assert said.count(LINE) == LINES
    assert writer.dropped == 0


def test_c30_after_a_full_disk_a_new_line_begins() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    file = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(file, lost, retry_s=0.001)
    writer.write(b"cut\n")
    until(lambda: writer.dropped == 1)
    os.dup2(write, file)
    writer.write(b"whole\n")
    assert drained(read, bytearray(), b"whole\n") == b"lost 1\nwhole\n"
    os.close(read)


def test_c30_children_write_and_end_whatever_becomes_of_the_log(pipe: list[int]) -> None:
    writer = LogWriter(pipe[1], lost, bytes_max=100_000)
    sink = LogStream(writer, relay(writer)).fileno()
    said = "import sys; sys.stderr.write('x' * 1_000_000)"
    done = subprocess.run([sys.executable, "-c", said], stderr=sink, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0
    until(lambda: writer.dropped > 0)


def test_c30_the_end_does_not_wait_for_a_reader(pipe: list[int]) -> None:
    writer = LogWriter(pipe[1], lost)
    for _ in range(LINES):
        writer.write(LINE)
    began = time.monotonic()
    writer.close(0.05)
    assert time.monotonic() - began < PATIENCE_S / 2


def test_c30_last_words_of_a_library_do_not_wait_for_a_reader(pipe: list[int]) -> None:
    shared = os.dup(pipe[1])
    keep_from_blocking(pipe[1])
    assert not os.get_blocking(pipe[1])
    assert os.get_blocking(shared), "other processes have the same pipe"
    os.close(shared)


def test_c30_closed_standard_descriptors_are_not_given_to_files() -> None:
    code = (
        "import os; os.closerange(0, 3)\n"
        "from daemon.log_writer import fill_standard_descriptors\n"
        "fill_standard_descriptors()\n"
        "os._exit(0 if [os.readlink(f'/proc/self/fd/{n}') for n in range(3)] == ['/dev/null'] * 3 else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE_S, check=False).returncode == 0
    fill_standard_descriptors()
    assert os.fstat(1)
