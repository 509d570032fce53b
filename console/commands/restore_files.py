"""`farshore restore files`: files out of a volume into a directory or an archive, or back into the volume.

Where files land is decided here and by nobody else (`console/files`): what comes out of a volume is a
stranger's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

import typer

from console.commands.file import (
    Device,
    KernelMount,
    KeyFile,
    NoReplay,
    Partition,
    end_with,
    key_of,
    require_open_stdout,
    show_missed,
    ways_of,
)
from console.confirming import confirmed
from console.figures import size_text
from console.files.into_volume import IntoReply, IntoVolume
from console.files.opening import OpenedFiles, open_files
from console.files.rights import NOT_KEPT, Dropped, Rights
from console.files.to_directory import DirectoryTarget, Outcome, may_give_owners
from console.files.to_tar import TarTarget
from console.files.walk import Finder, Item, Missed, MissedInfo, all_items, parse_path
from console.files.writing_back import Into
from console.session import Session, session_of
from protocol.commands.base import Reply, parse_volume_name
from protocol.commands.cut import CutInfo
from protocol.commands.pair import PairShow
from protocol.errors import ExitCode, UsageError, WrongState


class FilesReply(Reply, frozen=True, kw_only=True):
    """What came out of a volume, and what did not: `not_kept` by rule, `dropped` for want of rights."""

    cut: CutInfo
    to: str
    file_system: str
    replayed: bool
    files: int
    directories: int
    links: int
    bytes: int
    missed: list[MissedInfo]
    dropped: Dropped
    not_kept: str | None


def restore_files(
    ctx: typer.Context,
    volume: Annotated[str, typer.Argument(metavar="G/V", help="Group and volume.")],
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Files and directories in it, from /.")],
    at: Annotated[str, typer.Option("--at", metavar="CUT", help="The moment to take them from.")],
    to: Annotated[
        str,
        typer.Option("--to", metavar="DIR|-", help="Where they go, at their paths; - for tar to stdout."),
    ] = "",
    partition: Partition = 0,
    no_replay: NoReplay = False,
    kernel_mount: KernelMount = False,
    device: Device = "",
    key_file: KeyFile = None,
    special: Annotated[bool, typer.Option("--special", help="Devices and pipes too.")] = False,
    privileged: Annotated[
        bool,
        typer.Option("--privileged", help="Set-id bits, capabilities, security.* and trusted.* too."),
    ] = False,
    no_owner: Annotated[
        bool, typer.Option("--no-owner", help="Although root: everything belongs to the caller.")
    ] = False,
    into_volume: Annotated[
        bool,
        typer.Option("--into-volume", help="Back into the volume itself, by way of the peer's."),
    ] = False,
    peer_site: Annotated[
        str, typer.Option("--peer-site", metavar="NAME|DIR|ENDPOINT", help="The peer, if not by its name.")
    ] = "",
    stop: Annotated[str, typer.Option("--stop", metavar="CMD", help="Stops and unmounts the hosts.")] = "",
    start: Annotated[str, typer.Option("--start", metavar="CMD", help="Mounts and starts them.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the steps of --into-volume.")] = False,
    confirm: Annotated[str, typer.Option("--confirm", metavar="G/V", help="For --into-volume.")] = "",
) -> None:
    """Copy files out of a volume, as they were at a cut. Links are restored and never followed; nothing that
    is there already is overwritten. Ends with 3 when something did not come, and says what.

    With --into-volume they replace those in the volume itself: the hosts are stopped, the pair is split, the
    files are written at the peer through its file system, and what changed is taken in from there."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    wanted = [parse_path(os.fsencode(path)) for path in paths]
    ways = ways_of(partition, no_replay, kernel_mount, device, key_of(ctx, key_file))
    if bool(to) == into_volume:
        raise UsageError("name --to DIR, --to - or --into-volume", next_step="farshore restore files --help")
    if into_volume:
        into = Into(group=group, volume=name, at=at, paths=wanted, ways=ways, stop=stop, start=start)
        _restore_into(session, into, peer_site, dry_run=dry_run, confirm=confirm)
        return
    rights = Rights(owner=may_give_owners() and not no_owner, special=special, privileged=privileged)
    if privileged and to != "-" and not rights.owner:
        raise UsageError("--privileged takes root, without --no-owner", next_step="sudo farshore …")
    if to == "-" and session.output.as_json:
        raise UsageError("the archive takes standard output: not with --json", next_step="leave --json out")
    if to == "-":
        require_open_stdout()
    with open_files(session, group, name, session.cut(at), ways) as files:
        # A path that is not there must be said before anything is made.
        finder = Finder(files.source)
        found = [finder.ancestors(path) or [finder.find(path)] for path in wanted]
        items = all_items(files.source, found)
        outcome = _take(session, files, items, to, rights)
        data = _reply(files, outcome, to)
    if to == "-":
        for line in _left_out(data.not_kept, outcome):
            session.output.note(line)
        show_missed(session, outcome.missed)
    else:
        session.output.result("restore.files", data, lambda: _show_outcome(session, data, outcome))
    end_with(outcome.missed)


def _take(
    session: Session, files: OpenedFiles, items: Iterator[Item | Missed], to: str, rights: Rights
) -> Outcome:
    if to == "-":
        tar = TarTarget(sys.stdout.buffer, files.source, special=rights.special, privileged=rights.privileged)
        tar.take(items)
        tar.finish()
        return tar.outcome
    target = DirectoryTarget(to, files.source, rights)
    with closing(target), session.output.activity(f"restoring files to {to}"):
        target.take(items)
        target.finish()
    return target.outcome


def _restore_into(session: Session, into: Into, peer_site: str, *, dry_run: bool, confirm: str) -> None:
    """`--into-volume`: the plan, or all of it."""
    peer = peer_site or session.call(PairShow(group=into.group)).peer
    if not peer:
        raise WrongState(
            f"{into.group} has no peer to write the files at",
            subject=into.group,
            next_step="restore files --to DIR",
        )
    other = session.at(peer)
    with closing(other):
        flow = IntoVolume(session, other, into)

        def show() -> None:
            for number, step in enumerate(flow.plan().steps, 1):
                session.output.line(f"{number}. {step.where}: {step.do}")

        if dry_run:
            session.output.result("restore.files.plan", flow.plan(), show)
            return
        verb = "write the files into it"
        confirmed(session, confirm, into.name, verb, look="--dry-run", show=show)
        data = flow.run()
    session.output.result("restore.files", data, lambda: _show_into(session, into.name, data))
    if data.start_exit_code:
        session.output.note(f"error: the start command ended with {data.start_exit_code}\nnext: {into.start}")
        raise typer.Exit(int(ExitCode.PARTIAL))


def _show_into(session: Session, name: str, data: IntoReply) -> None:
    session.output.line(f"{data.files} files and {data.links} links are in {name}")
    session.output.fields(
        [
            ("from", session.cut_line(data.cut)),
            ("written", size_text(data.bytes)),
            ("checked", f"{data.checked_files} files, read back here"),
            ("took", f"{data.took_ms / 1e3:.1f} s"),
            ("undo", data.undo),
        ]
    )


def _reply(files: OpenedFiles, outcome: Outcome, to: str) -> FilesReply:
    return FilesReply(
        cut=files.cut,
        to=to,
        file_system=files.source.opened.file_system,
        replayed=files.replayed,
        files=outcome.files,
        directories=outcome.directories,
        links=outcome.links,
        bytes=outcome.data_bytes,
        missed=[each.info for each in outcome.missed],
        dropped=outcome.dropped,
        not_kept=_not_kept(files.source.opened.file_system, outcome),
    )


def _not_kept(file_system: str, outcome: Outcome) -> str | None:
    """What is not carried over by rule, said once."""
    return "; ".join(filter(None, (NOT_KEPT.get(file_system), outcome.root_without))) or None


def _show_outcome(session: Session, data: FilesReply, outcome: Outcome) -> None:
    session.output.line(
        f"{outcome.files} files, {outcome.directories} directories, {outcome.links} links and "
        f"{size_text(outcome.data_bytes)} are in {data.to}"
    )
    for line in _left_out(data.not_kept, outcome):
        session.output.line(line)
    show_missed(session, outcome.missed)


def _left_out(not_kept: str | None, outcome: Outcome) -> Iterator[str]:
    """What did not come by rule, and not by accident."""
    if not_kept:
        yield f"not kept: {not_kept}"
    if said := outcome.dropped.text():
        yield f"dropped: {said}; as root, --privileged restores them"
