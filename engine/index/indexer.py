"""The indexer: a child process of the daemon that works on a group's index, so that hosts never wait for it.

    python -P …/farshore/launch.py engine.index.indexer GROUP_DIRECTORY

It reads requests from standard input and answers on standard output, each a 4-byte big-endian length and a
msgpack row. A request is (kind, fields…), one of `HANDLERS`; the answer is ('done', figures…) or
('failed', error code, text), and then nothing was changed. Requests are carried out one after the other in
the order in which they come; the daemon's end (`daemon.indexer_process`) decides which goes first.
It ends when its input does, and is killed with the daemon: one that lived on could commit a plan of the last
run while the next one recovers. It opens the journal for reading only and is the
one writer of the group's index. It gives up the rights that this does not need (engine/ports/rights.py).
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import signal
import sys
from collections.abc import Callable
from struct import Struct
from typing import Any, BinaryIO

from engine.index.base_index import handle_drop, handle_install, handle_open, handle_part
from engine.index.base_requests import BaseDrop, BaseInstall, BaseOpen, BasePart
from engine.index.checkpoint import CheckpointPlan, handle_checkpoint
from engine.index.compaction import CompactPlan, handle_compact
from engine.index.forgetting import ForgetPlan, handle_forget
from engine.index.index_file import WRITER_ROOM_BYTES, open_index
from engine.index.requests import encode_request
from engine.integrity.index_repair import RepairIndex, handle_repair
from engine.integrity.verify_slices import (
    VerifyIndex,
    VerifyJournal,
    handle_verify_index,
    handle_verify_journal,
)
from engine.journal.reader import BadFrame
from engine.journal.segments import SegmentMap
from engine.ports.durable import RealDisk
from engine.ports.lmdb_store import LmdbStore
from engine.ports.rights import give_up_rights
from engine.ports.store import Store
from engine.retention.truncation import SweepPlan, TruncatePlan, handle_sweep, handle_truncation
from protocol.errors import FarshoreError
from protocol.rows import pack_row, unpack_row

LENGTH = Struct(">I")
REQUEST_BYTES_MAX = 64 << 20
NICENESS = 15
COMPACTION = encode_request(CompactPlan())
PR_SET_PDEATHSIG = 1


Handler = Callable[[Store, SegmentMap, tuple[Any, ...]], tuple[int, ...]]

# By kind of request: what carries it out, given its fields. A handler loads the segments that it needs.
HANDLERS: dict[str, Handler] = {
    CheckpointPlan.kind(): handle_checkpoint,
    BaseOpen.kind(): handle_open,
    BasePart.kind(): handle_part,
    BaseInstall.kind(): handle_install,
    BaseDrop.kind(): handle_drop,
    TruncatePlan.kind(): handle_truncation,
    SweepPlan.kind(): handle_sweep,
    ForgetPlan.kind(): handle_forget,
    CompactPlan.kind(): handle_compact,
    VerifyJournal.kind(): handle_verify_journal,
    VerifyIndex.kind(): handle_verify_index,
    RepairIndex.kind(): handle_repair,
}


def _read_message(stream: BinaryIO) -> bytes | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None


def answer_to(store: Store, segments: SegmentMap, request: bytes) -> tuple[object, ...]:
    """Carry out a request; the answer's row, as the module's docstring says."""
    try:
        kind, *fields = unpack_row(request, REQUEST_BYTES_MAX)
        return ("done", *HANDLERS[kind](store, segments, tuple(fields)))
    except (FarshoreError, BadFrame, OSError) as error:
        return _failed(error)


def _failed(error: FarshoreError | BadFrame | OSError) -> tuple[object, ...]:
    if isinstance(error, FarshoreError):
        return ("failed", error.code, error.message)
    return ("failed", "corruption" if isinstance(error, BadFrame) else "os-error", str(error))


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the daemon ends, however it ends (prctl(2),
    PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() == 1:
        sys.exit(1)


def main() -> int:
    """Serve until standard input ends."""
    directory = pathlib.Path(sys.argv[1])
    give_up_rights(directory)
    _die_with_parent()
    os.nice(NICENESS)
    segments = SegmentMap(RealDisk(directory, None))
    store: LmdbStore | None = None
    try:
        while (request := _read_message(sys.stdin.buffer)) is not None:
            try:
                store = store or open_index(directory, WRITER_ROOM_BYTES)
            except (FarshoreError, OSError) as error:
                answer = pack_row(_failed(error))
            else:
                answer = pack_row(answer_to(store, segments, request))
            if request == COMPACTION and store is not None:
                # The daemon puts the copy in its place once it is answered: the next request is for that one.
                store.close()
                store = None
            sys.stdout.buffer.write(LENGTH.pack(len(answer)) + answer)
            sys.stdout.buffer.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        if store is not None:
            store.close()
        segments.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
