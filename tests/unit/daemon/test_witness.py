"""The site's witness: what it notices, and that nothing depends on it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from daemon.witness import NoWitness, Witness, decode_record, witness_directory
from engine.group.holds import Holder
from engine.ports.durable import RealDisk
from protocol.errors import NotFound, Unsafe, WrongState
from protocol.limits import WITNESS_EVERY_S
from tests.unit.engine.group_rig import GROUP_ID, GroupRig, follow


class Room:
    """A site's data directory and, outside it, its witness; the group is a rig's."""

    def __init__(self, rig: GroupRig, parent: Path) -> None:
        self.rig = rig
        self.data = parent / "data"
        self.data.mkdir()
        self.state = parent / "state"
        self.events: list[tuple[str, dict[str, object]]] = []

    def witness(self, chosen: str = "") -> Witness:
        return Witness(
            chosen=chosen or str(self.state),
            environment={},
            data_directory=self.data,
            site_id="a1",
            clock=self.rig.clock,
            disk_at=lambda root: RealDisk(root, None),
            emit=lambda kind, **fields: self.events.append((kind, fields)),
        )

    def write(self) -> None:
        """A run of the site that begins, and ends in order."""
        witness = self.witness()
        witness.begin({"g": self.rig.group})
        witness.close()

    def compared(self, chosen: str = "") -> Witness:
        """The witness of a run that begins, after the group was opened."""
        witness = self.witness(chosen)
        witness.compare(self.rig.group, GROUP_ID)
        return witness

    @property
    def file(self) -> Path:
        (found,) = self.state.glob("*.json")
        return found

    def said(self) -> list[str]:
        return [kind for kind, _ in self.events]


@pytest.fixture
def room(rig: GroupRig, tmp_path: Path) -> Room:
    return Room(rig, tmp_path)


@pytest.fixture
def volume(room: Room) -> int:
    volume = room.rig.create("root", 8)
    room.rig.write(volume, 0, b"a")
    room.rig.sync()
    return volume


def turn_back(room: Room, volume: int) -> None:
    """The group is an old copy of itself: two writes, made durable, are not there."""
    rig = room.rig
    rig.drop()
    old = rig.directory.parent / "old"
    shutil.copytree(rig.directory, old)
    rig.open()
    for block in (1, 2):
        rig.write(volume, block, b"n")
        rig.sync()
    room.write()
    rig.drop()
    shutil.rmtree(rig.directory)
    shutil.copytree(old, rig.directory)
    rig.open()


def test_what_is_here_is_not_called_missing(room: Room, volume: int) -> None:
    room.write()
    room.rig.write(volume, 1, b"b")  # not durable, and not in the witness
    room.rig.reopen()
    room.compared()
    assert room.rig.group.turned_back.lost is None
    assert not room.rig.group.holds
    assert room.said() == ["witness.absent"]


def test_an_old_copy_is_held_back_run_after_run(room: Room, volume: int) -> None:
    turn_back(room, volume)
    group = room.rig.group
    witness = room.compared()
    assert group.turned_back.lost is not None
    assert Holder.OLDER in group.holds
    assert [kind for kind, _ in room.rig.events if kind == "group.turned_back"]
    with pytest.raises(WrongState, match="older here than it was"):
        room.rig.write(volume, 3, b"x")
    with pytest.raises(Unsafe, match="older here"):
        group.turned_back.require_whole()
    # The witness keeps saying what is missing, also over another run.
    witness.begin({"g": group})
    witness.close()
    room.rig.reopen()
    room.compared()
    assert room.rig.group.turned_back.lost is not None


def test_an_operators_word_ends_it_for_good(room: Room, volume: int) -> None:
    turn_back(room, volume)
    witness = room.compared()
    room.rig.group.turned_back.accept()
    assert not room.rig.group.holds
    room.rig.write(volume, 3, b"x")
    witness.begin({"g": room.rig.group})
    witness.close()
    room.rig.reopen()
    room.compared()
    assert room.rig.group.turned_back.lost is None


def test_what_comes_back_ends_it(rigs: tuple[GroupRig, GroupRig], tmp_path: Path) -> None:
    one, other = rigs
    room = Room(one, tmp_path)
    volume = one.group.volume("root").id
    one.drop()
    old = one.directory.parent / "old"
    shutil.copytree(one.directory, old)
    one.open()
    one.write(volume, 1, b"n")
    one.sync()
    follow(one, other)
    room.write()
    one.drop()
    shutil.rmtree(one.directory)
    shutil.copytree(old, one.directory)
    one.open()
    room.compared()
    assert one.group.turned_back.lost == other.end
    follow(other, one)
    assert one.group.turned_back.lost is not None, "it is not durable yet"
    one.sync()
    one.world.run_for(1.0)
    assert one.group.turned_back.lost is None
    assert not one.group.holds


def test_a_group_that_is_missing_is_named_until_it_is_given_up(room: Room, volume: int) -> None:
    room.write()
    for _ in range(2):
        witness = room.witness()
        witness.report_missing([], ())
        assert room.said().pop() == "group.missing"
        witness.begin({})
        witness.close()
    witness = room.witness()
    witness.report_missing([], ())
    assert witness.give_up("g") == room.rig.end
    with pytest.raises(NotFound):
        witness.give_up("g")
    witness.begin({})
    witness.close()
    before = len(room.events)
    room.witness().report_missing([], ())
    assert room.said()[before:] == []
    assert volume


def test_it_is_written_every_few_seconds_and_only_if_something_changed(room: Room, volume: int) -> None:
    witness = room.witness()
    witness.begin({"g": room.rig.group})
    first = room.file.read_bytes()
    room.rig.world.run_for(2 * WITNESS_EVERY_S)
    assert room.file.read_bytes() == first
    room.rig.write(volume, 1, b"b")
    room.rig.sync()
    room.rig.world.run_for(WITNESS_EVERY_S)
    (row,) = decode_record(room.file.read_bytes()).groups
    assert row.position == room.rig.end.position
    assert room.file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["lost", "cut", "flipped", "noise", "huge", "deep", "a directory", "a link"])
def test_one_that_cannot_be_read_stops_nothing_and_is_written_anew(room: Room, volume: int, how: str) -> None:
    turn_back(room, volume)
    path, whole = room.file, room.file.read_bytes()
    path.unlink()
    match how:
        case "cut":
            path.write_bytes(whole[:-9])
        case "flipped":
            path.write_bytes(whole.replace(b'"position":', b'"position":1'))
        case "noise":
            path.write_bytes(os.urandom(200))
        case "huge":
            path.write_bytes(bytes(5 << 20))
        case "deep":
            text = b"[" * 5000 + b"]" * 5000
            path.write_bytes(b"%08x %s\n" % (crc32c(text), text))
        case "a directory":
            path.mkdir()
        case "a link":
            path.symlink_to("/etc/passwd")
    room.events.clear()
    witness = room.compared()
    assert room.said() == ["witness.absent" if how == "lost" else "witness.damaged"]
    assert not room.rig.group.holds
    witness.begin({"g": room.rig.group})
    witness.close()
    if how == "a directory":
        assert room.said()[1:] == ["witness.not_written"]
    else:
        assert decode_record(path.read_bytes()).groups


def test_that_of_another_place_or_machine_is_not_believed(
    room: Room, volume: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn_back(room, volume)
    room.events.clear()
    with monkeypatch.context() as context:
        context.setattr("daemon.witness.machine_id", lambda: "another")
        room.compared()
    assert room.said() == ["witness.foreign"]
    assert not room.rig.group.holds
    room.data = room.data.parent / "elsewhere"
    room.data.mkdir()
    room.events.clear()
    room.compared()
    assert room.said() == ["witness.absent"]


def test_where_none_can_be_kept_that_is_said(room: Room, volume: int) -> None:
    open_to_all = room.state / "open"
    open_to_all.mkdir(parents=True)
    open_to_all.chmod(0o777)
    for chosen in ("none", str(room.data / "inside"), str(open_to_all), "/proc/nothing"):
        witness = room.compared(chosen)
        witness.begin({"g": room.rig.group})
        witness.write()
        witness.close()
    assert room.said() == ["witness.not_used"] * 4
    assert volume


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    assert witness_directory("/x", {"STATE_DIRECTORY": "/y"}, data) == Path("/x")
    assert witness_directory("", {"STATE_DIRECTORY": "/y:/z"}, data) == Path("/y/witness")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert witness_directory("", {"XDG_STATE_HOME": "/y"}, data) == Path("/var/lib/farshore/witness")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert witness_directory("", {"XDG_STATE_HOME": "/y"}, data) == Path("/y/farshore/witness")
    monkeypatch.setenv("HOME", "/home/x")
    assert witness_directory("", {"XDG_STATE_HOME": "y"}, data) == Path(
        "/home/x/.local/state/farshore/witness"
    )
    with pytest.raises(NoWitness):
        witness_directory("none", {}, data)


@given(st.binary(max_size=300))
def test_noise_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_record(data)
