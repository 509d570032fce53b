"""A file system whose log was not played back: a cut that was taken while it was mounted.

What was written last is in the log only; reading without it would miss files and say nothing. So the log is
played back on a temporary clone of the cut, which is thrown away afterwards: by e2fsck, which then checks and
repairs nothing, because what it would take for damage may be somebody's file.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from console.host_configs import Export, export_of, uri
from console.mounts.attach import attach
from console.mounts.clones import CLONE_TIMEOUT_S, delete_clone
from console.mounts.loops import drop_loops, make_loop
from console.mounts.programs import call
from console.session import Session
from protocol.clone_commands import CloneCreate
from protocol.commands import VolumeUri
from protocol.cut_text import CutPosition
from protocol.errors import FarshoreError
from protocol.file_stream import shown

REPLAY_TIMEOUT_S = 600.0
PURPOSE = "files"
# e2fsck: 1 errors corrected, 2 the machine should be restarted (which is said of mounted ones).
_FINE = (0, 1, 2)


@contextmanager
def temporary_clone(session: Session, group: str, volume: str, cut: dict[str, Any]) -> Iterator[Export]:
    """The export of a writable clone of one volume, which is gone afterwards."""
    clone = f"{PURPOSE}-{secrets.token_hex(4)}"
    at = CutPosition(timeline=int(cut["timeline"], 16), position=cut["position"])
    site = session.site.directory or session.site.endpoint
    try:
        session.call(
            CloneCreate(group=group, volume=volume, cut=at, clone=clone, temporary=True, purpose=PURPOSE),
            CLONE_TIMEOUT_S,
        )
        yield export_of(session.call(VolumeUri(group=clone, volume=volume)))
    finally:
        delete_clone(session, site, clone)


def replay(export: Export, first_byte: int, size_bytes: int) -> None:
    """Play back the log of the ext3 or ext4 file system in a stretch of a clone's export. For root.
    Raises FarshoreError."""
    with attach(uri(export), read_only=False) as attached:
        try:
            # A loop device and not the file itself: e2fsck writes the superblock by single bytes, and an
            # export takes whole sectors.
            device = make_loop(attached.path, read_only=False, offset=first_byte, size_bytes=size_bytes)
            words = ("e2fsck", "-y", "-E", "journal_only", device)
            code, said = call(*words, timeout_s=REPLAY_TIMEOUT_S)
        finally:
            drop_loops(attached.path)
    if code not in _FINE:
        raise FarshoreError(
            f"{export.name}: e2fsck could not play back the file system's log: {shown(said[-500:].encode())}",
            subject=export.name,
            next_step="add --no-replay to read what there is without it",
        )
