"""A file system whose log was not played back: a cut that was taken while it was mounted.

What was written last is in the log only; reading without it would miss files and say nothing. So the log is
played back on a temporary clone of the cut, which is thrown away afterwards: by e2fsck, which then checks and
repairs nothing, because what it would take for damage may be somebody's file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from console.files.programs import run_program
from console.host_configs import Export, export_of, uri
from console.mounts.attach import attach
from console.session import Session
from protocol.clone_commands import CloneCreate, CloneDelete
from protocol.commands import VolumeUri
from protocol.cut_text import CutPosition
from protocol.errors import FarshoreError

REPLAY_TIMEOUT_S = 600.0
PURPOSE = "reading files"
# e2fsck: 1 errors corrected, 2 the machine should be restarted (which is said of mounted ones).
_FINE = (0, 1, 2)


@contextmanager
def temporary_clone(session: Session, group: str, volume: str, cut: dict[str, Any]) -> Iterator[Export]:
    """The export of a writable clone of one volume, which is gone afterwards."""
    clone = f"files-{os.urandom(6).hex()}"
    at = CutPosition(timeline=int(cut["timeline"], 16), position=cut["position"])
    session.call(
        CloneCreate(group=group, volume=volume, cut=at, clone=clone, temporary=True, purpose=PURPOSE)
    )
    try:
        yield export_of(session.call(VolumeUri(group=clone, volume=volume)))
    finally:
        session.call(CloneDelete(clone=clone, confirm=clone, force=True))


def replay(export: Export, first_byte: int) -> None:
    """Play back the log of an ext3 or ext4 file system that begins at `first_byte`. Raises FarshoreError."""
    attached = attach(uri(export), read_only=False)
    try:
        words = ["e2fsck", "-y", "-E", "journal_only", f"{attached.path}?offset={first_byte}"]
        code, said = run_program(words, timeout_s=REPLAY_TIMEOUT_S)
    finally:
        attached.close()
    if code not in _FINE:
        raise FarshoreError(
            f"{export.name}: e2fsck could not play back the file system's log: {said[-500:]}",
            subject=export.name,
            next_step="add --no-replay to read what there is without it",
        )
