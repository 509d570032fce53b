"""An attached volume that is encrypted: given back, opened, and what is inside attached in its place.

What opens it ends when nbdfuse does, which is its only client: nothing more is to be noted of it, and
nothing more is taken down.
"""

from __future__ import annotations

from console.host_configs import Export, export_of, uri
from console.luks.secret import LuksKey
from console.luks.unlocking import Unlocker
from console.mounts.filesystems import Partition, luks_at
from console.mounts.mounting import Mount
from console.session import Session
from protocol.commands.base import parse_volume_name
from protocol.commands.volume import VolumeUri


def open_attached(
    made: Mount, export: Export, number: int | None, key: LuksKey, *, read_only: bool
) -> int | None:
    """Of what was attached, whatever lies in the partition that is meant; if that is encrypted, what is
    inside is attached from now on. Returns the partition's number in what is attached. Raises NotAllowed for
    a wrong key, Refused without one, or for what cannot be opened."""
    place = luks_at(made.file, number)
    if place is None:
        return number
    return open_place(made, export, place, number, key, read_only=read_only)


def open_clone(session: Session, made: Mount, place: Partition, number: int | None, key: LuksKey) -> str:
    """The same of a clone's volume that was attached to be written; the device of what is inside."""
    group, volume = parse_volume_name(made.export)
    export = export_of(session.call(VolumeUri(group=group, volume=volume)))
    inside = open_place(made, export, place, number, key, read_only=False)
    return made.make_device(read_only=False, number=inside)


def open_place(
    made: Mount, export: Export, place: Partition, number: int | None, key: LuksKey, *, read_only: bool
) -> int | None:
    """The same of what is known to be encrypted."""
    secret = key.secret(export.name)
    made.detach()
    unlocker = Unlocker(
        export, secret, first_byte=place.offset, size_bytes=place.size_bytes, read_only=read_only
    )
    try:
        made.attach(uri(unlocker.export), read_only=read_only)
    except BaseException:
        unlocker.close()
        raise
    unlocker.let_go()
    return None if place.number else number
