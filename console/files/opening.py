"""Opening the file system of a volume at a cut: which of the ways to read it is taken, and what is refused.

ext2, ext3, ext4, NTFS, FAT and exFAT are read in user space, by a confined process. A log that was not played
back is played back on a temporary clone first.

Others are mounted, by libguestfs or, if asked for, by the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from console.figures import size_text
from console.files.log_replay import replayed
from console.files.other_kernels import guest_can, guest_tree, kernel_tree
from console.files.reader_process import ReaderProcess
from console.files.source import FileSource
from console.host_configs import export_of
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
    this machine's kernel; `device`: of several in LVM; `quiet`: who asks tells of a log that is left out."""

    partition: int = 0
    replay: bool = True
    kernel: bool = False
    device: str = ""
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedFiles:
    """A file system that can be read. `replayed`: its log was, on a clone; `unplayed`: it was not."""

    source: FileSource
    cut: CutInfo
    replayed: bool
    unplayed: bool = False


@contextmanager
def open_files(session: Session, group: str, volume: str, cut: NamedCut, ways: Ways) -> Iterator[OpenedFiles]:
    """Raises FarshoreError: what cannot be read is refused with what could be done."""
    where = session.call(VolumeUri(group=group, volume=volume, cut=cut))
    name, found = where.export, cut_of(where)
    reader = ReaderProcess(export_of(where), partition=ways.partition)
    with reader:
        opened = reader.opened
        if opened.unfenced:
            session.output.note(f"warning: what reads {name} is kept in by one fence less: {opened.unfenced}")
        if not opened.file_system or ways.kernel:
            tree = _by_another_kernel(session, f"{group}/{volume}", where, opened, ways)
            if tree is None:
                raise _unreadable(name, opened, ways)
            reader.close()
            with tree as source:
                yield OpenedFiles(source=source, cut=found, replayed=True)
            return
        if not opened.unfinished or not ways.replay:
            if opened.unfinished and not ways.quiet:
                session.output.note(f"warning: {name}: its log is not played back; last writes may lack")
            elif opened.file_system == "ntfs" and not ways.quiet:
                session.output.note(f"{name}: the log of NTFS is not played back")
            yield OpenedFiles(source=reader, cut=found, replayed=False, unplayed=opened.unfinished)
            return
    if os.geteuid() != 0:
        raise NotAllowed(
            f"{name} was taken while its file system was mounted; playing back its log needs root",
            subject=name,
            next_step="sudo farshore …, or --no-replay: what was written last may lack",
        )
    with (
        replayed(
            session, group, volume, found, first_byte=opened.first_byte, size_bytes=opened.size_bytes
        ) as writable,
        ReaderProcess(writable, partition=ways.partition) as reader,
    ):
        if reader.opened.unfinished:
            raise FarshoreError(
                f"{name}: the file system's log could not be played back",
                subject=name,
                next_step="add --no-replay to read what there is without it",
            )
        yield OpenedFiles(source=reader, cut=found, replayed=True)


def _by_another_kernel(
    session: Session, name: str, where: VolumeUriReply, opened: Opened, ways: Ways
) -> AbstractContextManager[FileSource] | None:
    """None where nothing is known that would read it."""
    partition = ways.partition or opened.partition
    if ways.kernel:
        return kernel_tree(session, name, cut_of(where), partition, opened.holds)
    if guest_can(opened.holds):
        return guest_tree(export_of(where), partition, opened.holds, ways.device)
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
    if holds == "luks":
        return Refused(
            f"{name} is encrypted (LUKS), and there is no way to give the key here",
            subject=name,
            next_step=f"unlock it where the key is: `farshore volume uri {name}`, nbdfuse, cryptsetup",
        )
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
