"""Opening the file system of a volume at a cut: which of the ways to read it is taken, and what is refused.

ext2, ext3, ext4, NTFS, FAT and exFAT are read in user space, by a confined process. A log that was not played
back is played back on a temporary clone first.

Others are mounted, by libguestfs or, if asked for, by the kernel. What is encrypted (LUKS) is opened first by
a process of its own (console/luks), and then read as if it lay in the clear.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from console.figures import size_text
from console.files.log_replay import Log, replayed
from console.files.other_kernels import guest_can, guest_tree, kernel_tree
from console.files.reader_process import ReaderProcess
from console.files.source import FileSource
from console.host_configs import Export, export_of
from console.luks.secret import LuksKey
from console.luks.unlocking import LUKS, unlocker_of
from console.mounts.clones import cut_of
from console.session import Session
from protocol.commands.cut import CutInfo
from protocol.commands.volume import VolumeUri, VolumeUriReply
from protocol.cut_text import NamedCut
from protocol.errors import FarshoreError, NotAllowed, Refused, UsageError
from protocol.file_stream import Opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How to read. `partition` 0: the only one there is; `replay`: play back an unfinished log; `kernel`: by
    this machine's kernel; `device`: of several in LVM; `key`: of what is encrypted."""

    partition: int = 0
    replay: bool = True
    kernel: bool = False
    device: str = ""
    key: LuksKey = field(default_factory=LuksKey)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedFiles:
    """A file system that can be read. `replayed`: on a clone."""

    source: FileSource
    cut: CutInfo
    replayed: bool


@contextmanager
def open_files(session: Session, group: str, volume: str, cut: NamedCut, ways: Ways) -> Iterator[OpenedFiles]:
    """Raises FarshoreError: what cannot be read is refused with what could be done."""
    where = session.call(VolumeUri(group=group, volume=volume, cut=cut))
    with ExitStack() as stack:
        reader = _reader(session, stack, where, ways)
        yield _opened(session, stack, f"{group}/{volume}", where, reader, ways)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """The reader of an export, or of what is inside its encrypted stretch, which was found by `outer`."""

    process: ReaderProcess
    export: Export
    partition: int
    outer: Opened | None = None


def _reader(session: Session, stack: ExitStack, where: VolumeUriReply, ways: Ways) -> _Reader:
    export = export_of(where)
    process = stack.enter_context(ReaderProcess(export, partition=ways.partition))
    found = process.opened
    unfenced = found.unfenced
    reader = _Reader(process=process, export=export, partition=ways.partition)
    if found.holds == LUKS and not ways.kernel:
        process.close()
        unlocker = stack.enter_context(unlocker_of(export, found, ways.key, read_only=True))
        unfenced = unfenced or unlocker.unfenced
        inside = 0 if found.partition else ways.partition
        process = stack.enter_context(ReaderProcess(unlocker.export, partition=inside))
        reader = _Reader(process=process, export=unlocker.export, partition=inside, outer=found)
    if unfenced:
        session.output.note(f"warning: what reads {where.export} is kept in by one fence less: {unfenced}")
    return reader


def _opened(
    session: Session, stack: ExitStack, volume: str, where: VolumeUriReply, reader: _Reader, ways: Ways
) -> OpenedFiles:
    name, found, opened = where.export, cut_of(where), reader.process.opened
    if not opened.file_system or ways.kernel:
        tree = _by_another_kernel(session, volume, where, reader, ways)
        if tree is None:
            raise _unreadable(name, opened, ways)
        reader.process.close()
        return OpenedFiles(source=stack.enter_context(tree), cut=found, replayed=True)
    if not opened.unfinished or not ways.replay:
        if opened.unfinished:
            session.output.note(f"warning: {name}: its log is not played back; last writes may lack")
        elif opened.file_system == "ntfs":
            session.output.note(f"{name}: the log of NTFS is not played back")
        return OpenedFiles(source=reader.process, cut=found, replayed=False)
    reader.process.close()
    if os.geteuid() != 0:
        raise NotAllowed(
            f"{name} was taken while its file system was mounted; playing back its log needs root",
            subject=name,
            next_step="sudo farshore …, or --no-replay: what was written last may lack",
        )
    log = Log(first_byte=opened.first_byte, size_bytes=opened.size_bytes, outer=reader.outer, key=ways.key)
    writable = stack.enter_context(replayed(session, volume, found, log))
    again = stack.enter_context(ReaderProcess(writable, partition=reader.partition))
    if again.opened.unfinished:
        raise FarshoreError(
            f"{name}: the file system's log could not be played back",
            subject=name,
            next_step="add --no-replay to read what there is without it",
        )
    return OpenedFiles(source=again, cut=found, replayed=True)


def _by_another_kernel(
    session: Session, name: str, where: VolumeUriReply, reader: _Reader, ways: Ways
) -> AbstractContextManager[FileSource] | None:
    """None where nothing is known that would read it."""
    opened = reader.process.opened
    partition = reader.partition or opened.partition
    if ways.kernel:
        return kernel_tree(session, name, cut_of(where), partition, opened.holds, ways.key)
    if guest_can(opened.holds):
        return guest_tree(reader.export, partition, opened.holds, ways.device)
    return None


def _unreadable(name: str, opened: Opened, ways: Ways) -> FarshoreError:
    """Why there is nothing to read, and what can be done."""
    readable = [row for row in opened.partitions if row.holds]
    if opened.partitions and not opened.holds and len(readable) > 1:
        rows = "; ".join(
            f"{row.number}: {row.holds}, {size_text(row.size_bytes)}"
            for row in opened.partitions
            if row.holds
        )
        return UsageError(
            f"{name} has several partitions ({rows})", subject=name, next_step="add --partition NUMBER"
        )
    if ways.partition and ways.partition not in [row.number for row in opened.partitions]:
        known = ", ".join(str(row.number) for row in opened.partitions) or "none"
        return UsageError(f"{name} has no partition {ways.partition} (it has {known})", subject=name)
    holds = opened.holds
    if holds:
        return Refused(
            f"{name} holds {holds}, which is not read in user space",
            subject=name,
            next_step="install libguestfs-tools, or add --kernel-mount: the kernel, as root, parses it",
        )
    return Refused(
        f"{name} holds no file system that is known here",
        subject=name,
        next_step=f"look at it by hand: `farshore volume uri {name}`",
    )
