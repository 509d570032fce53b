"""`farshore ls` and `cat`: looking at the files in a volume at any cut.

Everything that comes out of a volume is a stranger's: names are printed escaped.
"""

from __future__ import annotations

import sys
from typing import Annotated, BinaryIO

import typer
from msgspec import UNSET, UnsetType

from console.figures import local_text
from console.files.opening import Ways, open_files
from console.files.source import FileSource, Path
from console.files.target import parse_place
from console.files.walk import Finder, Item, Missed, MissedInfo, path_text, walk
from console.luks.option import KeyFile as KeyFile
from console.luks.option import key_of as key_of
from console.luks.secret import LuksKey
from console.session import Session, session_of
from console.streams import require_open_stdout as require_open_stdout
from protocol.commands.base import Reply
from protocol.commands.cut import CutInfo
from protocol.cut_text import time_text
from protocol.errors import ExitCode, FarshoreError, UsageError
from protocol.file_stream import PARTITION_MAX, Entry, Extents, shown

MISSED_SHOWN_MAX = 50

PlaceArgument = Annotated[str, typer.Argument(metavar="G/V@CUT:/PATH", help="A path in a volume at a cut.")]
Partition = Annotated[
    int,
    typer.Option(
        "--partition",
        metavar="NUMBER",
        min=0,
        max=PARTITION_MAX,
        help="Of several partitions in the volume, from 1.",
    ),
]
NoReplay = Annotated[
    bool,
    typer.Option("--no-replay", help="Read a mounted file system's cut without its log: last writes lack."),
]
KernelMount = Annotated[
    bool,
    typer.Option("--kernel-mount", help="Let this machine's kernel, as root, parse what is in the volume."),
]
Device = Annotated[
    str, typer.Option("--device", metavar="/dev/VG/LV", help="Of several in LVM, for libguestfs.")
]


class EntryInfo(Reply, frozen=True, kw_only=True):
    """What a directory lists. `path_bytes`, in hex, is there where the path is not UTF-8."""

    path: str
    kind: str
    mode: str
    uid: int
    gid: int
    size_bytes: int
    mtime: str | None
    links: int
    number: int
    target: str | None
    attributes: list[str]
    lacks: list[str]
    path_bytes: str | UnsetType = UNSET


class LsReply(Reply, frozen=True, kw_only=True):
    """A directory at a cut. `replayed`: its file system's log was, on a clone."""

    cut: CutInfo
    file_system: str
    replayed: bool
    entries: list[EntryInfo]
    missed: list[MissedInfo]


def ls(
    ctx: typer.Context,
    place: PlaceArgument,
    long: Annotated[bool, typer.Option("-l", "--long", help="Mode, owner, size and time too.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="What is below, too.")] = False,
    partition: Partition = 0,
    no_replay: NoReplay = False,
    kernel_mount: KernelMount = False,
    device: Device = "",
    key_file: KeyFile = None,
) -> None:
    """List a directory in a volume as it was at a cut."""
    session = session_of(ctx)
    at = parse_place(place, with_cut=True)
    ways = ways_of(partition, no_replay, kernel_mount, device, key_of(ctx, key_file))
    with open_files(session, at.group, at.volume, session.cut(str(at.cut)), ways) as files:
        start = Finder(files.source).find(at.path)
        rows, missed = [], []
        for found in walk(files.source, start, recursive=recursive):
            if isinstance(found, Missed):
                missed.append(found)
            elif found is not start or start.entry.what != "d":
                rows.append(found)
        data = LsReply(
            cut=files.cut,
            file_system=files.source.opened.file_system,
            replayed=files.replayed,
            entries=[_entry_info(item) for item in rows],
            missed=[each.info for each in missed],
        )

    def show() -> None:
        for item in rows:
            session.output.line(_line(session, item, start.path, long=long))
        show_missed(session, missed)

    session.output.result("ls", data, show)
    end_with(missed)


def cat(
    ctx: typer.Context,
    place: PlaceArgument,
    partition: Partition = 0,
    no_replay: NoReplay = False,
    kernel_mount: KernelMount = False,
    device: Device = "",
    key_file: KeyFile = None,
) -> None:
    """A file in a volume, as it was at a cut, to standard output."""
    session = session_of(ctx)
    at = parse_place(place, with_cut=True)
    if session.output.as_json:
        raise UsageError("cat writes the file as it is: not with --json", next_step="leave --json out")
    require_open_stdout()
    ways = ways_of(partition, no_replay, kernel_mount, device, key_of(ctx, key_file))
    with open_files(session, at.group, at.volume, session.cut(str(at.cut)), ways) as files:
        item = Finder(files.source).find(at.path)
        if item.entry.what != "f":
            raise UsageError(f"{path_text(item.path)} is no file", subject=path_text(item.path))
        _copy_out(files.source, item, sys.stdout.buffer)


def _copy_out(source: FileSource, item: Item, out: BinaryIO) -> None:
    """A file with its holes as zeroes. Raises Failed."""
    zeroes = bytes(1 << 20)
    size = at = 0
    for piece in source.content(item.path, item.entry):
        if isinstance(piece, Extents):
            size = piece.size_bytes
            continue
        while at < piece.offset:
            at += out.write(zeroes[: min(len(zeroes), piece.offset - at)])
        at += out.write(piece.data)
    while at < size:
        at += out.write(zeroes[: min(len(zeroes), size - at)])
    out.flush()


def ways_of(partition: int, no_replay: bool, kernel_mount: bool, device: str, key: LuksKey) -> Ways:
    """The options that say how to read."""
    return Ways(partition=partition, replay=not no_replay, kernel=kernel_mount, device=device, key=key)


def end_with(missed: list[Missed]) -> None:
    if missed:
        raise typer.Exit(int(ExitCode.PARTIAL))


def _entry_info(item: Item) -> EntryInfo:
    entry, raw = item.entry, b"/" + b"/".join(item.path)
    return EntryInfo(
        path=raw.decode("utf-8", "backslashreplace"),
        kind=entry.what,
        mode=f"{entry.mode:04o}",
        uid=entry.uid,
        gid=entry.gid,
        size_bytes=entry.size_bytes,
        mtime=time_of(entry),
        links=entry.links,
        number=entry.number,
        target=shown(entry.target) if entry.what == "l" else None,
        attributes=[shown(name) for name, _ in entry.attributes],
        lacks=list(entry.lacks),
        path_bytes=UNSET if _is_utf8(raw) else raw.hex(),
    )


def time_of(entry: Entry) -> str | None:
    """A time that no calendar of ours has is None."""
    try:
        return time_text(entry.mtime_ns)
    except (FarshoreError, ValueError, OverflowError):
        return None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _line(session: Session, item: Item, below: Path, *, long: bool) -> str:
    names = item.path[len(below) :] or item.path[-1:]
    name = "/".join(shown(each) for each in names)
    entry = item.entry
    if not long:
        return name + ("/" if entry.what == "d" else "")
    size = f"{entry.major},{entry.minor}" if entry.what in "bc" else str(entry.size_bytes)
    when = local_text(time_of(entry), session.zone)
    arrow = f" -> {shown(entry.target)}" if entry.what == "l" else ""
    return f"{mode_text(entry)} {entry.uid:>5} {entry.gid:>5} {size:>12} {when} {name}{arrow}"


def mode_text(entry: Entry) -> str:
    """`drwxr-sr-t`, as ls writes it."""
    kind = "-" if entry.what == "f" else entry.what
    out = [kind]
    for shift, bit, letters in ((6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")):
        three = entry.mode >> shift & 7
        execute = "x" if three & 1 else "-"
        if entry.mode & bit:
            execute = letters[0] if three & 1 else letters[1]
        out += ["r" if three & 4 else "-", "w" if three & 2 else "-", execute]
    return "".join(out)


def show_missed(session: Session, missed: list[Missed]) -> None:
    """To the person: standard output may be an archive."""
    for each in missed[:MISSED_SHOWN_MAX]:
        session.output.note(f"missing: {path_text(each.path)}: {each.why}")
    if len(missed) > MISSED_SHOWN_MAX:
        session.output.note(f"missing: {len(missed) - MISSED_SHOWN_MAX} more: see --json")
