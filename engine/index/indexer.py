"""The indexer: a child process of the daemon that works on groups' indexes, so that hosts never wait for it.

    python -P …/farshore/launch.py engine.index.indexer GROUPS_DIRECTORY

It reads requests from standard input: the name of a group, and a msgpack row (kind, fields…) whose kind is
one of `HANDLERS`, each after a 4-byte big-endian length. It answers on standard output, with a length and
the row ('done', figures…) or ('failed', error code, text); then nothing was changed. Requests are carried out
one after the other in the order in which they come; the daemon's end (`daemon.indexer_pool`) decides which
goes first, and sees to it that one process at a time works for a group. The index of one group is open, that
of the last request; `LET_GO` closes it.

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
from engine.retention.reclaim_requests import SweepPlan, TruncatePlan
from engine.retention.sweep import handle_sweep
from engine.retention.truncation import handle_truncation
from protocol.errors import FarshoreError
from protocol.rows import pack_row, unpack_row

LENGTH = Struct(">I")
REQUEST_BYTES_MAX = 64 << 20
NICENESS = 15
COMPACTION = encode_request(CompactPlan())
LET_GO = b""
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


class _OpenGroup:
    """The group of the last request."""

    def __init__(self, groups: pathlib.Path) -> None:
        self._groups = groups
        self._name = ""
        self._store: LmdbStore | None = None
        self._segments: SegmentMap | None = None

    def answer_to(self, name: str, request: bytes) -> tuple[object, ...]:
        """Carry out a request about a group; the answer's row."""
        if name != self._name:
            self.close()
        self._name = name
        if request == LET_GO:
            return ("done",)
        directory = self._groups / name
        try:
            self._store = self._store or open_index(directory, WRITER_ROOM_BYTES)
        except (FarshoreError, OSError) as error:
            return _failed(error)
        self._segments = self._segments or SegmentMap(RealDisk(directory, None))
        answer = answer_to(self._store, self._segments, request)
        if request == COMPACTION:
            # The daemon puts the copy in its place once it is answered: the next request is for that one.
            self.close()
        return answer

    def close(self) -> None:
        """Have nothing of it open."""
        if self._store is not None:
            self._store.close()
        if self._segments is not None:
            self._segments.close()
        self._store = self._segments = None


def main() -> int:
    """Serve until standard input ends."""
    groups = pathlib.Path(sys.argv[1])
    give_up_rights(groups)
    _die_with_parent()
    os.nice(NICENESS)
    group = _OpenGroup(groups)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        while (name := _read_message(requests)) is not None:
            request = _read_message(requests)
            if request is None:
                break
            answer = pack_row(group.answer_to(name.decode(), request))
            answers.write(LENGTH.pack(len(answer)) + answer)
            answers.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        group.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
