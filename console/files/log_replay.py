"""A file system whose log was not played back: a cut that was taken while it was mounted.

What was written last is in the log only; reading without it would miss files and say nothing. So the log is
played back on a temporary clone of the cut, which is thrown away afterwards: by e2fsck, which then checks and
repairs nothing, because what it would take for damage may be somebody's file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from console.host_configs import Export, export_of
from console.luks.secret import LuksKey
from console.luks.unlocking import unlocker_of
from console.mounts.clones import attached, cloned, until_told
from console.mounts.loops import make_loop
from console.mounts.programs import call
from console.session import Session, fixed_cut
from protocol.commands.base import parse_volume_name
from protocol.commands.cut import CutInfo
from protocol.commands.volume import VolumeUri
from protocol.errors import FarshoreError
from protocol.file_stream import Opened

REPLAY_TIMEOUT_S = 600.0
PURPOSE = "files"
# e2fsck: 1 errors corrected, 2 the machine should be restarted (which is said of mounted ones).
_FINE = (0, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Where the file system lies whose log it is: in the volume, or in what a reader found encrypted there
    (`outer`), which `key` opens."""

    first_byte: int
    size_bytes: int
    outer: Opened | None
    key: LuksKey


@contextmanager
def replayed(session: Session, name: str, cut: CutInfo, log: Log) -> Iterator[Export]:
    """The export of a clone of `G/V`, or of what is inside, in a stretch of which the log of an ext3 or ext4
    file system was played back; gone afterwards. For root. Raises FarshoreError."""
    group, volume = parse_volume_name(name)
    with ExitStack() as stack:
        stack.enter_context(until_told())
        clone = stack.enter_context(cloned(session, group, volume, fixed_cut(cut), PURPOSE))
        export = export_of(session.call(VolumeUri(group=clone.clone, volume=volume)))
        if log.outer is not None:
            export = stack.enter_context(unlocker_of(export, log.outer, log.key, read_only=False)).export
        with attached(session, clone.clone, volume, export) as made:
            # A loop device and not the file itself: e2fsck writes the superblock by single bytes, and an
            # export takes whole sectors.
            device = make_loop(made.file, read_only=False, offset=log.first_byte, size_bytes=log.size_bytes)
            words = ("e2fsck", "-y", "-E", "journal_only", device)
            code, said = call(*words, timeout_s=REPLAY_TIMEOUT_S)
        if code not in _FINE:
            raise FarshoreError(
                f"{name}: e2fsck could not play back the file system's log: {said[-500:]}",
                subject=name,
                next_step="add --no-replay to read what there is without it",
            )
        yield export
