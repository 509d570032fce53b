"""The site's witness: a small file outside the data directory, which a copy of that directory lacks. By it a
site that is put back as it was notices by itself (docs/decisions/0019).

    DIRECTORY/SITE_ID-PLACE.json     PLACE: 16 hex digits of the data directory's path; one line,
                                     CRC-32C of the rest in 8 hex digits, a space, a JSON object (`_Record`)

It names, for each group, the newest cut that was durable here. It is written after a start, every
`WITNESS_EVERY_S` if something changed, before a branch is dropped and at a stop; never with a host waiting.
So what an old copy lacks of the last seconds before it stopped goes unnoticed, and nothing is ever called
missing that was not durable.

It can say that something is missing, and no more. One that is not there, damaged, not writable or another
machine's is reported and written anew; nothing depends on it. A row whose cut is not here stays as it is
until the cut is here or an operator gave it up.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable, Container, Iterable, Mapping

import crc32c
import msgspec

from daemon.data_directory import machine_id
from engine.group.compartment import attempt
from engine.group.group import Group
from engine.group.listeners import Emit
from engine.ports.clock import Clock, Timer
from engine.ports.durable import RealDisk
from protocol.bounds import GroupIdOrNone, Name, Position, Text, TimelineId, UtcNs
from protocol.cut_text import time_text
from protocol.errors import NotFound
from protocol.limits import WITNESS_BYTES_MAX, WITNESS_EVERY_S
from protocol.positions import Cut

OFF = "none"
FORMAT = 1


class _Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One group's newest durable cut."""

    group: Name
    group_id: GroupIdOrNone
    timeline: TimelineId
    position: Position


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. `directory` and `machine` say whose it is."""

    format: int
    site_id: Text
    directory: Text
    machine: Text
    utc_ns: UtcNs
    groups: tuple[_Row, ...]


class NoWitness(Exception):
    """There is none that can be used; the text says why."""


def witness_directory(
    chosen: str, environment: Mapping[str, str], data_directory: pathlib.Path
) -> pathlib.Path:
    """Where witnesses are kept: as site.toml says; else with the service manager's state
    ($STATE_DIRECTORY), root's in /var/lib/farshore, a user's in $XDG_STATE_HOME or ~/.local/state. NoWitness
    if it is switched off, or inside what would be copied."""
    if chosen == OFF:
        raise NoWitness("it is switched off in site.toml")
    state = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if chosen:
        found = pathlib.Path(chosen)
    elif state.startswith("/"):
        found = pathlib.Path(state, "witness")
    elif os.geteuid() == 0:
        found = pathlib.Path("/var/lib/farshore/witness")
    else:
        home = environment.get("XDG_STATE_HOME", "")
        try:
            base = pathlib.Path(home) if home.startswith("/") else pathlib.Path.home() / ".local/state"
        except RuntimeError as error:
            raise NoWitness(f"there is no home directory: {error}") from error
        found = base / "farshore/witness"
    if found.resolve().is_relative_to(data_directory.resolve()):
        raise NoWitness(f"{found} is inside the data directory, and is copied with it")
    return found


class Witness:
    """What a site has said elsewhere of how far it is. It reads once, when it is made, and reports what is
    wrong as events."""

    def __init__(
        self,
        *,
        chosen: str,
        environment: Mapping[str, str],
        data_directory: pathlib.Path,
        site_id: str,
        clock: Clock,
        disk_at: Callable[[pathlib.Path], RealDisk],
        emit: Emit,
    ) -> None:
        self._place = str(data_directory.resolve())
        self._machine = machine_id()
        self._site_id = site_id
        self._clock = clock
        self._emit = emit
        self._disk: RealDisk | None = None
        self._name = f"{site_id}-{hashlib.sha256(os.fsencode(self._place)).hexdigest()[:16]}.json"
        self._rows: dict[tuple[str, str], Cut] = {}
        self._written: dict[tuple[str, str], Cut] | None = None
        self._as_of_ns = 0
        self._ids: dict[str, str] = {}  # of groups, by name
        self._writing = False
        self._failing = False
        self._timer: Timer | None = None
        self._groups: Mapping[str, Group] = {}
        self._lacking: set[tuple[str, str]] = set()
        try:
            root = witness_directory(chosen, environment, data_directory)
            _prepare(root)
            self._disk = disk_at(root)
            self._read(self._disk)
        except (NoWitness, OSError) as error:
            self._emit("witness.not_used", object=chosen, error=str(error))

    # -- what it knows

    def _read(self, disk: RealDisk) -> None:
        try:
            record = decode_record(_content(disk, self._name))
        except FileNotFoundError:
            self._emit("witness.absent", object=self._name)
            return
        except (OSError, ValueError, RecursionError) as error:
            self._emit("witness.damaged", object=self._name, error=str(error))
            return
        if (record.site_id, record.directory, record.machine) != (self._site_id, self._place, self._machine):
            self._emit("witness.foreign", object=self._name, error=f"it is of {record.directory}")
            return
        self._as_of_ns = record.utc_ns
        self._rows = {(row.group, row.group_id): Cut(row.timeline, row.position) for row in record.groups}

    def compare(self, group: Group, group_id: str) -> None:
        """Say so if a group that was opened is older here than it was."""
        cut = self._rows.get((group.name, group_id))
        if cut is not None:
            group.turned_back.found(cut, f"the site's witness of {time_text(self._as_of_ns)}")

    def report_missing(self, here: Iterable[tuple[str, str]], aside: Container[str]) -> None:
        """Say so of each group, by name and id, that was here and is not; of those set aside their names are
        known."""
        self._lacking = {key for key in self._rows.keys() - set(here) if key[0] not in aside}
        for name, _ in sorted(self._lacking):
            self._emit(
                "group.missing",
                group=name,
                reason=f"it was at this site on {time_text(self._as_of_ns)} and is not here: is this an old "
                "copy of the data directory?",
                next=f"`farshore site accept {name} --confirm {name}` gives it up",
            )

    def give_up(self, name: str) -> Cut:
        """Forget a group that is missing here; the cut that it was at. NotFound."""
        keys = [key for key in self._lacking if key[0] == name]
        if not keys:
            raise NotFound(f"there is no group {name} here, nor is one missing", subject=name)
        cuts = [self._rows.pop(key) for key in keys]
        self._lacking.difference_update(keys)
        return max(cuts, key=lambda cut: cut.position)

    def forget(self, name: str) -> None:
        """A group was deleted here, or has another name."""
        for key in [key for key in self._rows if key[0] == name]:
            del self._rows[key]
        self.write()

    # -- writing it

    def begin(self, groups: Mapping[str, Group]) -> None:
        """Keep it up to date from now on, for these and those that come."""
        self._groups = groups
        self._tick()

    def _tick(self) -> None:
        self._timer = self._clock.call_later(WITNESS_EVERY_S, self._tick)
        attempt("witness.failed", self._begin_writing)

    def _begin_writing(self) -> None:
        if self._disk is not None and not self._writing and self._changed():
            self._writing = True
            rows = dict(self._rows)
            self._disk.start_replace_file(self._name, self._encoded(), lambda error: self._done(rows, error))

    def write(self) -> None:
        """Write it now, and wait for that, unless it is being written anyway. What cannot be written is
        reported."""
        if self._disk is not None and not self._writing and self._changed():
            try:
                self._disk.replace_file(self._name, self._encoded())
            except OSError as error:
                self._done(self._rows, error)
            else:
                self._done(dict(self._rows), None)

    def close(self) -> None:
        """The last word, once nothing more becomes durable."""
        if self._timer is not None:
            self._timer.cancel()
        if self._disk is not None:
            self._disk.close()
            self._writing = False  # it has been carried out, whatever is still to be said of it
            self.write()

    def _changed(self) -> bool:
        for name, group in self._groups.items():
            if group.head and group.turned_back.lost is None:
                if name not in self._ids:
                    self._ids[name] = group.state.group(name).group_id
                key = (name, self._ids[name])
                self._rows[key] = Cut(group.head.timeline, group.writer.durable)
                self._lacking.discard(key)
        return self._rows != self._written

    def _done(self, rows: dict[tuple[str, str], Cut], error: OSError | None) -> None:
        self._writing = False
        if error is None:
            self._written = rows
        elif not self._failing:
            self._emit("witness.not_written", object=self._name, error=str(error))
        self._failing = error is not None

    def _encoded(self) -> bytes:
        record = _Record(
            format=FORMAT,
            site_id=self._site_id,
            directory=self._place,
            machine=self._machine,
            utc_ns=self._clock.utc_ns(),
            groups=tuple(
                _Row(group=name, group_id=group_id, timeline=cut.timeline, position=cut.position)
                for (name, group_id), cut in sorted(self._rows.items())
            ),
        )
        return encode_record(record)


def encode_record(record: _Record) -> bytes:
    """As the module's docstring says."""
    text = msgspec.json.encode(record)
    return b"%08x %s\n" % (crc32c.crc32c(text), text)


def decode_record(data: bytes) -> _Record:
    """The reverse. ValueError if it is damaged, or no such file; RecursionError if it is nested too deep."""
    check, _, text = data.rstrip(b"\n").partition(b" ")
    if check != b"%08x" % crc32c.crc32c(text):
        raise ValueError("its checksum is wrong")
    record = msgspec.json.decode(text, type=_Record)
    if record.format != FORMAT:
        raise ValueError(f"it has format {record.format}")
    return record


def _content(disk: RealDisk, name: str) -> bytes:
    """OSError; ValueError if it is too long to be one."""
    file = disk.open(name)
    try:
        if file.size() > WITNESS_BYTES_MAX:
            raise ValueError(f"it has {file.size()} bytes")
        return file.pread(file.size(), 0)
    finally:
        file.close()


def _prepare(root: pathlib.Path) -> None:
    """NoWitness if others could write there; OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = root.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise NoWitness(f"{root} belongs to others, or others may write there")
