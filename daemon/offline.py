"""A dead site's journal shown, and its volume served to one host: for `farshore journal show --dir | replay`.

No lock, no identity check, no daemon: the directory may be a copy on any machine, and nothing in it is
changed. The host is on the other end of a socket that was handed over, so nobody else can connect.
"""

from __future__ import annotations

import asyncio
import pathlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from daemon.data_directory import STATE_FILE, read_identity
from daemon.exports import SiteExports
from daemon.operations.journal import journal_of
from daemon.operations.shapes import cut_info, extended, time_of
from engine.group.site_state import Role
from engine.history.cuts import resolve_cut
from engine.offline.groups import DeadSite, OfflineGroup, offline_groups, open_offline
from engine.ports.clock import SystemClock
from protocol.commands.base import check_name, parse_volume_name
from protocol.commands.journal import JournalShow, OfflineBackup, OfflineJournalReply, ReplayFound
from protocol.cut_text import CutTime, parse_fixed_cut, time_text
from protocol.errors import FarshoreError, NotFound, UsageError, WrongState
from site_primary.nbd.server import NbdServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What is to be read: a volume `G/V` (or nothing, where there is only one) at a cut in a fixed form."""

    directory: pathlib.Path
    until: str
    volume: str = ""
    with_index: bool = True
    partial: bool = False


def serve_replay(replay: Replay, connection: socket.socket, ready: Callable[[ReplayFound], None]) -> None:
    """Serve it to the host on `connection` until that goes; `ready` is called once with what was found.
    FarshoreError if it is not there."""
    # Standard output is for what was found; a block that cannot be read is told to the host.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    asyncio.run(_serve(replay, connection, ready))


async def _serve(replay: Replay, connection: socket.socket, ready: Callable[[ReplayFound], None]) -> None:
    loop = asyncio.get_running_loop()
    group_name, volume_name = _names(replay)
    site = _site(replay.directory, with_index=replay.with_index, partial=replay.partial)
    opened = open_offline(site, group_name, SystemClock(loop))
    try:
        found = _found(opened, replay.until, volume_name)
    except FarshoreError as error:
        if opened.notes:
            error.message = f"{error.message} ({'; '.join(opened.notes)})"
        raise
    group = opened.group
    exports = SiteExports({group_name: group}, opened.state, lambda _: group.head.utc_ns, lambda _: "")
    ready(found)
    await NbdServer(loop, exports).serve(connection)
    opened.close()


def show_journal(directory: pathlib.Path, command: JournalShow) -> OfflineJournalReply:
    """The reply of `journal.show`, with the backups and `notes`. FarshoreError if it is not there."""

    async def show() -> OfflineJournalReply:
        opened = open_offline(_site(directory), command.group, SystemClock(asyncio.get_running_loop()))
        group = opened.group
        held = group.spans(group.writer.written)
        copies = [
            OfflineBackup(
                id=f"{copy.id:016x}",
                label=copy.label or None,
                cut=cut_info(copy.cut, time_of(group, copy.cut)),
            )
            for copy in group.copies.at(held)
            if group.kept.readable(copy.cut)
        ]
        reply = journal_of(group, command, lambda site_id: site_id)
        opened.close()
        return extended(OfflineJournalReply, reply, backups=copies, notes=opened.notes)

    return asyncio.run(show())


def _site(directory: pathlib.Path, *, with_index: bool = True, partial: bool = False) -> DeadSite:
    try:
        site_id = read_identity(directory).site_id
    except FarshoreError:
        site_id = ""
    return DeadSite(
        directory=directory,
        state_file=directory / STATE_FILE,
        site_id=site_id,
        with_index=with_index,
        partial=partial,
    )


def _names(replay: Replay) -> tuple[str, str]:
    """Group and, if it was given, volume. UsageError where there is a choice."""
    if "/" in replay.volume:
        return parse_volume_name(replay.volume)
    if replay.volume:
        return check_name(replay.volume, "group"), ""
    groups = offline_groups(replay.directory)
    if len(groups) != 1:
        raise UsageError(
            f"{replay.directory} holds {len(groups)} groups: {', '.join(groups)}",
            subject=str(replay.directory),
            next_step="choose a volume of one: --volume G/V",
        )
    return groups[0], ""


def _found(opened: OfflineGroup, until: str, volume: str) -> ReplayFound:
    """What a replay would give."""
    group = opened.group
    named = parse_fixed_cut(until)
    if isinstance(named, CutTime) and named.utc_ns > group.head.utc_ns:
        raise WrongState(
            f"the journal ends at {time_text(group.head.utc_ns)}, before {until}",
            subject=group.name,
            position=str(group.end),
            next_step="ask for `latest`",
        )
    cut = resolve_cut(group, named, role=Role.SECONDARY, complete_until_ns=group.head.utc_ns)
    volumes = group.volumes.at(group.timelines.lineage(cut.timeline, cut.position))
    if not volume:
        if len(volumes) != 1:
            names = ", ".join(f"{group.name}/{each}" for each in sorted(volumes)) or "none"
            raise UsageError(
                f"group {group.name} has {len(volumes)} volumes at {cut}: {names}",
                subject=group.name,
                position=str(cut),
                next_step="choose one: --volume G/V",
            )
        (volume,) = volumes
    if volume not in volumes:
        raise NotFound(
            f"there is no volume {group.name}/{volume} at {cut}",
            subject=f"{group.name}/{volume}",
            position=str(cut),
            next_step=f"it has {', '.join(sorted(volumes)) or 'none'} then",
        )
    return ReplayFound(
        volume=f"{group.name}/{volume}",
        size_bytes=volumes[volume].size_bytes,
        cut=cut_info(cut, time_of(group, cut)),
        end=cut_info(group.end, group.head.utc_ns),
        since=str(opened.since) if opened.since else None,
        notes=opened.notes,
        export=f"{group.name}/{volume}@{cut}",
    )
