"""`farshore ls`, `cat`, `restore files` and `files versions`: files out of a volume at any cut.

Everything that comes out of a volume is a stranger's: names are printed escaped, and where files land is
decided here and by nobody else (`console/files`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated, Any, BinaryIO

import typer

from console.figures import local_text, size_text
from console.files.opening import OpenedFiles, Ways, open_files
from console.files.source import FileSource, Path
from console.files.target import parse_place
from console.files.to_directory import DirectoryTarget, Outcome, may_give_owners
from console.files.to_tar import TarTarget
from console.files.walk import Finder, Item, Missed, parse_path, path_text, walk
from console.session import Session, session_of
from protocol.commands import parse_volume_name
from protocol.cut_text import time_text
from protocol.errors import ExitCode, FarshoreError, UsageError
from protocol.file_stream import Entry, Extents, shown

MISSED_SHOWN_MAX = 50

PlaceArgument = Annotated[str, typer.Argument(metavar="G/V@CUT:/PATH", help="A path in a volume at a cut.")]
Partition = Annotated[
    int, typer.Option("--partition", metavar="NUMBER", help="Of several partitions in the volume, from 1.")
]
NoReplay = Annotated[
    bool,
    typer.Option("--no-replay", help="Read a mounted file system's cut without its log: last writes lack."),
]


def ls(
    ctx: typer.Context,
    place: PlaceArgument,
    long: Annotated[bool, typer.Option("-l", "--long", help="Mode, owner, size and time too.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="What is below, too.")] = False,
    partition: Partition = 0,
    no_replay: NoReplay = False,
) -> None:
    """List a directory in a volume as it was at a cut."""
    session = session_of(ctx)
    at = parse_place(place, with_cut=True)
    cut = session.cut(str(at.cut))
    with open_files(session, at.group, at.volume, cut, _ways(partition, no_replay)) as files:
        start = Finder(files.source).find(at.path)
        rows, missed = [], []
        for found in walk(files.source, start, recursive=recursive):
            if isinstance(found, Missed):
                missed.append(found)
            elif found is not start or start.entry.what != "d":
                rows.append(found)
        data = {
            "cut": files.cut,
            "file_system": files.source.opened.file_system,
            "replayed": files.replayed,
            "entries": [_entry_data(item) for item in rows],
            "missed": [_missed_data(each) for each in missed],
        }

    def show() -> None:
        for item in rows:
            session.output.line(_line(session, item, start.path, long=long))
        _show_missed(session, missed)

    session.output.result("ls", data, show)
    _end(missed)


def cat(
    ctx: typer.Context, place: PlaceArgument, partition: Partition = 0, no_replay: NoReplay = False
) -> None:
    """A file in a volume, as it was at a cut, to standard output."""
    session = session_of(ctx)
    at = parse_place(place, with_cut=True)
    cut = session.cut(str(at.cut))
    if session.output.as_json:
        raise UsageError("cat writes the file as it is: not with --json", next_step="leave --json out")
    with open_files(session, at.group, at.volume, cut, _ways(partition, no_replay)) as files:
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


def restore_files(
    ctx: typer.Context,
    volume: Annotated[str, typer.Argument(metavar="G/V", help="Group and volume.")],
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Files and directories in it, from /.")],
    at: Annotated[str, typer.Option("--at", metavar="CUT", help="The moment to take them from.")],
    to: Annotated[
        str, typer.Option("--to", metavar="DIR|-", help="Where they go, at their paths; - for tar to stdout.")
    ],
    partition: Partition = 0,
    no_replay: NoReplay = False,
    special: Annotated[bool, typer.Option("--special", help="Devices and pipes too.")] = False,
    no_owner: Annotated[
        bool, typer.Option("--no-owner", help="Although root: everything belongs to the caller.")
    ] = False,
) -> None:
    """Copy files out of a volume, as they were at a cut. Links are restored and never followed; nothing that
    is there already is overwritten. Ends with 3 when something did not come, and says what."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    wanted = [parse_path(os.fsencode(path)) for path in paths]
    if to == "-" and session.output.as_json:
        raise UsageError("the archive takes standard output: not with --json", next_step="leave --json out")
    cut = session.cut(at)
    with open_files(session, group, name, cut, _ways(partition, no_replay)) as files:
        # A path that is not there must be said before anything is made.
        finder = Finder(files.source)
        found = [finder.ancestors(path) or [finder.find(path)] for path in wanted]
        items = _all_items(files.source, found)
        if to == "-":
            tar = TarTarget(sys.stdout.buffer, files.source, special=special)
            tar.take(items)
            tar.finish()
            outcome = tar.outcome
        else:
            owner = may_give_owners() and not no_owner
            target = DirectoryTarget(to, files.source, owner=owner, special=special)
            with closing(target), session.output.activity(f"restoring files of {volume}"):
                target.take(items)
                target.finish()
            outcome = target.outcome
        data = _outcome_data(files, outcome, to)
    if to == "-":
        _show_missed(session, outcome.missed)
    else:
        session.output.result("restore.files", data, lambda: _show_outcome(session, outcome, to))
    _end(outcome.missed)


def _all_items(source: FileSource, found: list[list[Item]]) -> Iterator[Item | Missed]:
    """The way to each path, then what is there and below."""
    for way in found:
        yield from way[:-1]
        yield from walk(source, way[-1])


def _ways(partition: int, no_replay: bool) -> Ways:
    return Ways(partition=partition, replay=not no_replay)


def _end(missed: list[Missed]) -> None:
    if missed:
        raise typer.Exit(int(ExitCode.PARTIAL))


def _entry_data(item: Item) -> dict[str, Any]:
    """`path_bytes` is there where the path is not UTF-8."""
    entry, raw = item.entry, b"/" + b"/".join(item.path)
    data: dict[str, Any] = {
        "path": raw.decode("utf-8", "backslashreplace"),
        "kind": entry.what,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size_bytes": entry.size_bytes,
        "mtime": time_of(entry),
        "links": entry.links,
        "number": entry.number,
        "target": shown(entry.target) if entry.what == "l" else None,
        "attributes": [shown(name) for name, _ in entry.attributes],
    }
    return data | ({} if _is_utf8(raw) else {"path_bytes": raw.hex()})


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


def _missed_data(missed: Missed) -> dict[str, str]:
    return {"path": path_text(missed.path), "why": missed.why}


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


def _outcome_data(files: OpenedFiles, outcome: Outcome, to: str) -> dict[str, Any]:
    return {
        "cut": files.cut,
        "to": to,
        "file_system": files.source.opened.file_system,
        "replayed": files.replayed,
        "files": outcome.files,
        "directories": outcome.directories,
        "links": outcome.links,
        "bytes": outcome.bytes,
        "missed": [_missed_data(each) for each in outcome.missed],
    }


def _show_outcome(session: Session, outcome: Outcome, to: str) -> None:
    session.output.line(
        f"{outcome.files} files, {outcome.directories} directories, {outcome.links} links and "
        f"{size_text(outcome.bytes)} are in {to}"
    )
    _show_missed(session, outcome.missed)


def _show_missed(session: Session, missed: list[Missed]) -> None:
    """To the person: standard output may be an archive."""
    for each in missed[:MISSED_SHOWN_MAX]:
        session.output.note(f"missing: {path_text(each.path)}: {each.why}")
    if len(missed) > MISSED_SHOWN_MAX:
        session.output.note(f"missing: {len(missed) - MISSED_SHOWN_MAX} more: see --json")
