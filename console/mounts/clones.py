"""Temporary clones for this machine's mounts: made, attached, and gone with what they were for.

A clone's name is written down before it is made, in a mount's directory (`mounting.py`), so that `farshore
umount` can remove what a killed command left.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shlex import quote
from types import FrameType

from console.host_configs import Export, export_of, uri
from console.local_time import monotonic, pause
from console.mounts.mounting import DEVICE, Mount, record
from console.session import Session
from console.sites import choose_site
from protocol.commands.clone import CloneCreate, CloneCreateReply, CloneDelete
from protocol.commands.cut import CutInfo
from protocol.commands.volume import VolumeUri, VolumeUriReply
from protocol.cut_text import NamedCut
from protocol.errors import Busy, FarshoreError, NotAllowed, NotFound, RemoteProtocolError, Unreachable

CLONE_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 10.0
POLL_S = 0.05


def cut_of(where: VolumeUriReply) -> CutInfo:
    """The cut of an export that was asked for at one. Raises RemoteProtocolError if it is the live volume."""
    if where.cut is None:
        raise RemoteProtocolError(f"bad reply to volume.uri: {where.export} is at no cut")
    return where.cut


@contextmanager
def until_told() -> Iterator[None]:
    """The body undoes what it did when it is ended by SIGTERM or a terminal that goes, as with Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def undone_on_error(session: Session, point: Path | None, export: str) -> Iterator[Mount]:
    """A new mount, which the body brings up; undone when that fails or is interrupted.
    `point` as for `record`."""
    made = record(point, export=export, site=site_of(session))
    try:
        yield made
    except BaseException:
        undo(session, made)
        raise


@contextmanager
def device_noted(session: Session, export: str) -> Iterator[Mount]:
    """The same of what is to be a device and no more."""
    with undone_on_error(session, None, export) as made:
        made.note("kind", DEVICE)
        yield made


def take_down(session: Session, made: Mount) -> None:
    """Bring a mount down, and delete the clone behind it. Raises Busy as `Mount.undo` does."""
    made.undo(partial(delete_clone, session))


def undo(session: Session, made: Mount) -> bool:
    """The same; False, and said, when something holds it: `mount --list` then has it."""
    try:
        take_down(session, made)
    except FarshoreError as left:
        again = (
            f"farshore volume detach {made.export}"
            if made.kind
            else f"farshore umount {quote(str(made.point))}"
        )
        session.output.note(f"not undone: {left.message}", f"next: {again}")
        return False
    return True


@contextmanager
def cloned(
    session: Session, group: str, volume: str | None, cut: NamedCut, purpose: str
) -> Iterator[CloneCreateReply]:
    """A temporary clone, gone at the body's end."""
    name = f"{purpose}-{secrets.token_hex(4)}"
    scope = group if volume is None else f"{group}/{volume}"
    made = record(None, export=scope, site=site_of(session), name=name)
    try:
        yield create_clone(session, made, group, volume, cut, name)
    finally:
        undo(session, made)


def create_clone(
    session: Session, made: Mount, group: str, volume: str | None, cut: NamedCut, name: str
) -> CloneCreateReply:
    """A temporary clone, noted in the mount that it is for before it is made."""
    made.note("clone", name)
    purpose = f"mount {made.point}"[:63] if made.named else name.partition("-")[0]
    command = CloneCreate(group=group, volume=volume, cut=cut, clone=name, temporary=True, purpose=purpose)
    try:
        return session.call(command, CLONE_TIMEOUT_S)
    except NotAllowed:
        # There is none: whoever may not make it may not delete it, and its note would stay for good.
        made.note("clone", "")
        raise


@contextmanager
def attached(session: Session, clone: str, volume: str, export: Export | None = None) -> Iterator[Mount]:
    """A clone's volume as a file, to make a device and a file system of; `export` is attached instead."""
    made = record(None, export=f"{clone}/{volume}", site=site_of(session), name=f"{clone}.{volume}")
    try:
        if export is None:
            export = export_of(session.call(VolumeUri(group=clone, volume=volume)))
        made.attach(uri(export), read_only=False)
        yield made
    finally:
        undo(session, made)


def delete_clone(session: Session, site: str, clone: str) -> None:
    """Remove a temporary clone. One that is gone is fine, and so is a daemon that is away: it removes its
    temporary clones when it starts. Raises Busy when something else uses it."""
    client = choose_site(site).client()
    deadline = monotonic() + CLOSE_TIMEOUT_S
    try:
        while True:
            try:
                client.call(CloneDelete(clone=clone, confirm=clone), CLONE_TIMEOUT_S)
                return
            except Busy:
                # The daemon may not have seen yet that nbdfuse is gone.
                if monotonic() > deadline:
                    raise
                pause(POLL_S)
    except NotFound:
        return
    except Unreachable:
        session.output.note(f"the daemon is away; it removes clone {clone} when it starts")
    finally:
        client.close()


def site_of(session: Session) -> str:
    """The session's site in a form that means the same wherever `umount` is called."""
    return session.site.directory or session.site.endpoint
