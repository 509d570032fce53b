"""`farshore journal replay`: a volume out of a dead site's directory, with no daemon.

A child process reads the directory and serves the volume on a socket that only this command holds the other
end of; the image is then written, and read back, as by `volume export`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import msgspec
import typer

from console.commands.site import Directory, daemon_words
from console.figures import size_text, span_text
from console.images.copying import Salvage
from console.images.formats import RAW, format_of
from console.images.nbd_image import NbdImage
from console.images.report import FormatOption, steps
from console.images.stream_images import STREAM, require_stream, write_stream
from console.images.writing import write_image
from console.local_time import monotonic
from console.session import Session, session_of
from console.sites import require_outside_sites
from protocol.commands.base import Reply
from protocol.commands.journal import ReplayFound, ReplayVolume
from protocol.cut_text import cut_text
from protocol.errors import ExitCode, FarshoreError, error_from_dict

END_TIMEOUT_S = 10.0
LOST_SHOWN_MAX = 20


class LostRange(Reply, frozen=True, kw_only=True):
    """A part that could not be read."""

    offset: int
    bytes: int


class ReplayReply(ReplayVolume, frozen=True, kw_only=True):
    """The volume, and the image that was written."""

    file: str
    format: str
    data_bytes: int
    file_bytes: int
    digest: str
    lost: list[LostRange]
    took_s: float


def replay(
    ctx: typer.Context,
    directory: Directory,
    output: Annotated[
        Path, typer.Option(metavar="FILE|-", help="The image to write; -: raw, to standard output.")
    ],
    until: Annotated[str, typer.Option(metavar="CUT", help="Which moment.")] = "latest",
    volume: Annotated[
        str, typer.Option(metavar="G/V", help="Which volume, where there is more than one.")
    ] = "",
    image_format: FormatOption = None,
    without_index: Annotated[
        bool, typer.Option("--without-index", help="Read the journal only; as if the index were lost.")
    ] = False,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Where a lost index had the rest: what the journal still holds."),
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Although FILE exists.")] = False,
) -> None:
    """Write a volume as it was at one moment out of a dead site's data directory, or a copy of one.

    Needs no daemon, and changes nothing in DIR. Blocks that cannot be read are left as zeroes and listed, and
    it ends with 3, as it does with --partial if that was needed."""
    session = session_of(ctx)
    streams = str(output) == STREAM
    if streams:
        require_stream(kind := image_format or RAW, as_json=session.output.as_json)
    else:
        kind = format_of(output, image_format)
        require_outside_sites(output)  # but DIR, a dead one's: it may be on the only disk that has room
    words = ["replay", os.path.abspath(directory), f"--until={cut_text(session.cut(until))}"]
    words += [f"--volume={volume}"] if volume else []
    words += [*(["--without-index"] if without_index else []), *(["--partial"] if partial else [])]
    began = monotonic()
    with _served(words) as (found, image):
        for note in found.notes:
            session.output.note(f"note: {note}")
        source = Salvage(image)
        with steps(session, found.volume, source) as step:
            if streams:
                digest = write_stream(source, step).text(source.size_bytes)
                _end_stream(session, found, source, digest)
                return
            made = write_image(source, output, kind, replace=replace, step=step)
    data = ReplayReply(
        volume=found.volume,
        size_bytes=found.size_bytes,
        cut=found.cut,
        end=found.end,
        since=found.since,
        notes=found.notes,
        file=str(output),
        format=kind,
        data_bytes=made.data_bytes,
        file_bytes=made.file_bytes,
        digest=made.digest,
        lost=[LostRange(offset=offset, bytes=length) for offset, length in source.lost],
        took_s=round(monotonic() - began, 3),
    )
    session.output.result("journal.replay", data, lambda: _show(session, data))
    if source.lost or data.since:
        raise typer.Exit(int(ExitCode.PARTIAL))


def _end_stream(session: Session, found: ReplayFound, source: Salvage, digest: str) -> None:
    """Standard output is the image's alone: what is said goes to standard error."""
    cut = session.cut_line(found.cut)
    session.output.note(f"{found.volume} {cut}".rstrip(), f"digest {digest}, not read back")
    if found.since:
        session.output.note(f"only since {found.since}")
    for each in source.lost[:LOST_SHOWN_MAX]:
        session.output.note(f"lost {each[1]} bytes at {each[0]}: zeroes")
    if len(source.lost) > LOST_SHOWN_MAX:
        session.output.note(f"lost {len(source.lost) - LOST_SHOWN_MAX} more ranges")
    if source.lost or found.since:
        raise typer.Exit(int(ExitCode.PARTIAL))


@contextmanager
def _served(words: list[str]) -> Iterator[tuple[ReplayFound, NbdImage]]:
    """What the child found, and the volume. Raises the operator error that it answered with."""
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile("w+") as complaints:
        with theirs:
            child = subprocess.Popen(
                daemon_words([*words, f"--descriptor={theirs.fileno()}", "--json"]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                pass_fds=[theirs.fileno()],
                text=True,
            )
        try:
            found = _answer(child, complaints)
            with NbdImage(ours, found.export) as image:
                yield found, image
        finally:
            # It ends with its only host.
            ours.close()
            _end(child)


def _answer(child: subprocess.Popen[str], complaints: IO[str]) -> ReplayFound:
    line = child.stdout.readline() if child.stdout is not None else ""
    try:
        answer = json.loads(line)
        if "data" in answer:
            return msgspec.convert(answer["data"], ReplayFound)
        error = error_from_dict(answer["errors"][0])
    except (ValueError, LookupError, TypeError):
        code = child.wait(END_TIMEOUT_S)
        complaints.seek(0)
        said = complaints.read().strip().splitlines()
        error = FarshoreError(
            f"reading the directory ended with {code}{': ' + said[-1] if said else ''}",
            next_step="if the index is what is damaged: --without-index",
        )
    raise error


def _end(child: subprocess.Popen[str]) -> None:
    try:
        child.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _show(session: Session, data: ReplayReply) -> None:
    output = session.output
    output.fields(
        [
            ("volume", data.volume),
            ("cut", session.cut_line(data.cut)),
            ("only since", data.since or ""),
            ("end", session.cut_line(data.end)),
            ("file", f"{data.file} ({data.format})"),
            ("size", size_text(data.size_bytes)),
            ("data", size_text(data.data_bytes)),
            ("digest", data.digest),
            ("took", span_text(data.took_s)),
        ]
    )
    for each in data.lost[:LOST_SHOWN_MAX]:
        output.line(f"lost      {each.bytes} bytes at {each.offset}: zeroes in {data.file}")
    if len(data.lost) > LOST_SHOWN_MAX:
        output.line(f"lost      {len(data.lost) - LOST_SHOWN_MAX} more ranges: --json lists all")
