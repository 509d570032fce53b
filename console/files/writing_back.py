"""Files of a copy into the file system of a volume, and whether they are there."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from console.files.digests import content_digest
from console.files.opening import OpenedFiles, Ways, open_files
from console.files.other_kernels import kernel_mounted
from console.files.rights import Rights
from console.files.source import Path
from console.files.to_directory import DirectoryTarget, Outcome
from console.files.walk import Finder, Item, all_items, path_text
from console.session import Session
from protocol.commands.volume import VolumeOffline, VolumeOnline
from protocol.cut_text import CutLatest
from protocol.errors import FarshoreError, Mismatch

# What came out of the volume goes back into it.
_ALL = Rights(owner=True, special=True, privileged=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Into:
    """What is to be done. `stop` and `start` are lines of shell, empty for none."""

    group: str
    volume: str
    at: str
    paths: list[Path]
    ways: Ways
    stop: str
    start: str

    @property
    def name(self) -> str:
        """`G/V`."""
        return f"{self.group}/{self.volume}"


def write_files(there: Session, into: Into, files: OpenedFiles, found: list[list[Item]]) -> Outcome:
    """The files into the secondary's volume, through its file system."""
    there.call(VolumeOnline(group=into.group, volume=into.volume))
    partition = files.source.opened.partition or into.ways.partition
    with kernel_mounted(there, into.name, None, partition, into.ways.key) as point:
        target = DirectoryTarget(str(point), files.source, _ALL, replace=True)
        with closing(target), there.output.activity(f"writing files into {into.name}"):
            target.take(all_items(files.source, found))
            target.finish()
    there.call(VolumeOffline(group=into.group, volume=into.volume))
    if target.outcome.missed:
        missed = target.outcome.missed[0]
        raise FarshoreError(
            f"{path_text(missed.path)}: {missed.why}: {into.name} stays as it was",
            subject=into.name,
            next_step="restore files --to DIR, and copy what came by hand",
        )
    return target.outcome


def check_files(here: Session, into: Into, outcome: Outcome) -> None:
    """Each file as the primary has it now. Raises Mismatch."""
    with open_files(here, into.group, into.volume, CutLatest(), into.ways) as files:
        finder = Finder(files.source)
        for path, digest in sorted(outcome.digests.items()):
            if content_digest(files.source, finder.find(path)) != digest:
                raise Mismatch(
                    f"{into.name}: {path_text(path)} is not what was written",
                    subject=into.name,
                    next_step=f"farshore verify {into.group} --deep",
                )
