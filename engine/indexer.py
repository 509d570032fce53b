"""The indexer: a child process of the daemon that carries out checkpoints, so that hosts never wait for them.

    python -m engine.indexer GROUP_DIRECTORY

It reads requests from standard input and answers on standard output, each a 4-byte big-endian length and a
msgpack row. A request is a checkpoint plan; the answer is ('done', versions) or ('failed', error code, text).
It ends when its input does, and is killed with the daemon: one that lived on could commit a plan of the last
run while the next one recovers. It opens the journal for reading only and is the
one writer of the group's index.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import signal
import sys
from struct import Struct
from typing import BinaryIO

from engine.checkpoint import CheckpointPlan, run_checkpoint
from engine.durable import RealDisk
from engine.index_file import open_index
from engine.journal.reader import BadFrame, JournalReader
from engine.journal.segments import SegmentMap
from engine.ports.store import Store
from engine.timelines import Timeline
from protocol.errors import FarshoreError
from protocol.positions import Cut
from protocol.rows import check_row, pack_row, unpack_row

LENGTH = Struct(">I")
NICENESS = 15
PR_SET_PDEATHSIG = 1


def encode_plan(plan: CheckpointPlan) -> bytes:
    """A plan as a row."""
    timelines = [(t.id, t.parent, t.fork, t.generation, t.writer, t.lane) for t in plan.timelines]
    return pack_row((plan.target.timeline, plan.target.position, plan.durable, timelines))


def decode_plan(data: bytes) -> CheckpointPlan:
    """The plan in a row."""
    timeline, position, durable, rows = check_row(unpack_row(data, 64 << 20), int, int, int, tuple)
    timelines = tuple(
        Timeline(id=row[0], parent=row[1], fork=row[2], generation=row[3], writer=row[4], lane=row[5])
        for row in rows
    )
    return CheckpointPlan(target=Cut(timeline, position), durable=durable, timelines=timelines)


def _read_message(stream: BinaryIO) -> bytes | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None


def answer_to(store: Store, segments: SegmentMap, request: bytes) -> tuple[object, ...]:
    """Carry out a request; the answer's row, as the module's docstring says."""
    plan = decode_plan(request)
    try:
        # Not those of other timelines: a fork that is being tried leaves files which the next try replaces.
        for timeline in plan.timelines:
            segments.load_timeline(timeline.id)
        return ("done", run_checkpoint(store, JournalReader(segments), plan))
    except FarshoreError as error:
        return ("failed", error.code, error.message)
    except BadFrame as error:
        return ("failed", "corruption", str(error))
    except OSError as error:
        return ("failed", "os-error", str(error))


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the daemon ends, however it ends (prctl(2),
    PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() == 1:
        sys.exit(1)


def main() -> int:
    """Serve until standard input ends."""
    directory = pathlib.Path(sys.argv[1])
    _die_with_parent()
    os.nice(NICENESS)
    segments = SegmentMap(RealDisk(directory, None))
    store = open_index(directory)
    try:
        while (request := _read_message(sys.stdin.buffer)) is not None:
            answer = pack_row(answer_to(store, segments, request))
            sys.stdout.buffer.write(LENGTH.pack(len(answer)) + answer)
            sys.stdout.buffer.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        store.close()
        segments.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
