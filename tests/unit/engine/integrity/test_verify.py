"""Verification finds each single damage, says where, and goes on behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.index.levels import blocks_at
from engine.index.versions import VERSION_KEY, VersionKind
from engine.integrity.faults import Fault
from engine.integrity.verified import DAMAGE_MAX, Verified
from engine.integrity.verify_rounds import VerifyRound
from protocol.errors import Corruption
from protocol.events import ZERO
from protocol.frames import FramePrefix
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from tests.unit.engine.group_rig import GroupRig
from tests.unit.engine.integrity.test_verify_rounds import finish

pytestmark = pytest.mark.usefixtures("run_sizes")

BLOCKS = 8


class Sound:
    """A group of several frames over a restart, indexed up to its last frame but one."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.volume = rig.create("root", BLOCKS)
        self.prefixes: list[FramePrefix] = []
        self.write(0, b"a", b"b")
        rig.reopen()
        for block in range(2, 6):
            self.write(block, bytes([97 + block]))
        self.prefixes.append(rig.append([(ZERO, self.volume, 0, 1)]).prefix)
        rig.checkpoint()
        self.write(6, b"x")
        rig.sync()

    def write(self, block: int, *contents: bytes) -> None:
        self.prefixes.append(self.rig.write(self.volume, block, *contents).prefix)

    def verify(self, *, deep: bool) -> Verified:
        group = self.rig.group
        at = VerifyRound(
            group=group,
            began_utc_ns=group.clock.utc_ns(),
            target=Cut(group.head.timeline, group.writer.durable),
            indexed=group.checkpoints.reached,
            deep=deep,
        )
        damage = finish(self.rig, at)
        return Verified(frames=at.frames, journal_bytes=at.journal_bytes, versions=at.versions, damage=damage)

    def segment_of(self, prefix: FramePrefix) -> tuple[Path, int]:
        """The file that a frame stands in, and where."""
        segment = self.rig.group.segments.segment_at(prefix.timeline, prefix.position)
        assert segment is not None
        return self.rig.directory / "g" / segment.path, prefix.position - segment.start

    def flip(self, prefix: FramePrefix, offset: int) -> None:
        """Flip a byte of a frame in its file."""
        path, start = self.segment_of(prefix)
        with path.open("r+b") as file:
            file.seek(start + offset)
            byte = file.read(1)[0]
            file.seek(start + offset)
            file.write(bytes([byte ^ 0x10]))

    def index_rows(self) -> list[tuple[bytes, bytes]]:
        rows = []
        with self.rig.group.store.read() as read:
            cursor = read.cursor("versions")
            while cursor.next():
                rows.append((bytes(cursor.key()), bytes(cursor.value())))
        return rows


@pytest.fixture
def sound(rig: GroupRig) -> Sound:
    return Sound(rig)


def positions(found: Verified) -> set[str]:
    return {damage.position for damage in found.damage}


def place(prefix: FramePrefix) -> str:
    return str(Cut(prefix.timeline, prefix.position))


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_group_has_no_damage(sound: Sound, deep: bool) -> None:
    found = sound.verify(deep=deep)
    assert found.damage == []
    assert found.frames == 2 + 1 + 7 + 1 - 1
    assert found.journal_bytes == sound.rig.end.position
    assert found.versions == 6 + 1


def test_a_flipped_byte_anywhere_in_any_frame_is_found(sound: Sound) -> None:
    for prefix in sound.prefixes:
        for offset in (0, 17, 25, 33, 41, 49, 57, 73, prefix.frame_bytes - 1):
            sound.flip(prefix, offset)
            found = sound.verify(deep=False)
            assert place(prefix) in positions(found), (prefix, offset)
            assert {damage.fault for damage in found.damage} == {Fault.FRAME}
            sound.flip(prefix, offset)
    assert sound.verify(deep=True).damage == []


def test_one_damaged_frame_does_not_hide_the_next(sound: Sound) -> None:
    for prefix in sound.prefixes[1:4]:
        sound.flip(prefix, prefix.frame_bytes - 1)
    found = sound.verify(deep=False)
    assert positions(found) >= {place(prefix) for prefix in sound.prefixes[1:4]}
    assert found.frames > 0


def test_a_file_cut_short_is_found(sound: Sound) -> None:
    path, start = sound.segment_of(sound.prefixes[2])
    with path.open("r+b") as file:
        file.truncate(start + 100)
    found = sound.verify(deep=False)
    assert place(sound.prefixes[2]) in positions(found)
    assert any("version of block" in damage.message for damage in found.damage)


def test_every_flipped_byte_of_an_index_value_is_found_deep(sound: Sound) -> None:
    for key, value in sound.index_rows():
        for at in range(len(value)):
            damaged = bytearray(value)
            damaged[at] ^= 1
            with sound.rig.group.store.write() as write:
                write.put("versions", key, bytes(damaged))
            found = sound.verify(deep=True)
            _, volume, tag, _ = VERSION_KEY.unpack(key)
            blocks = blocks_at(tag)
            name = f"blocks {blocks[0]} to {blocks[-1]}" if len(blocks) > 1 else f"block {blocks[0]}"
            if len(blocks) > 1 and at > 0 and value[0] == VersionKind.RUN:
                name = f"block {blocks[(at - 1) // 4]}"  # each has a checksum of its own
            assert [damage.subject for damage in found.damage] == [f"lane 0 volume {volume:x} {name}"]
            with sound.rig.group.store.write() as write:
                write.put("versions", key, value)
    assert sound.verify(deep=True).damage == []


def test_an_index_row_of_another_length_is_found(sound: Sound) -> None:
    key, value = sound.index_rows()[0]
    with sound.rig.group.store.write() as write:
        write.put("versions", key, value + b"\0")
    assert len(sound.verify(deep=False).damage) == 1


def test_a_missing_index_row_is_found_deep(sound: Sound) -> None:
    """A read would go on to an older version, or to zeroes, and call it the truth."""
    written = [key for key, value in sound.index_rows() if value[0] in (VersionKind.JOURNAL, VersionKind.RUN)]
    for key in written:
        with sound.rig.group.store.write() as write:
            value = write.get("versions", key)
            write.delete("versions", key)
        assert value is not None
        assert sound.verify(deep=False).damage == []
        (damage,) = sound.verify(deep=True).damage
        assert "no index row" in damage.message
        with sound.rig.group.store.write() as write:
            write.put("versions", key, value)


def test_a_changed_or_missing_record_is_found_deep(sound: Sound) -> None:
    """The size of a volume, for example, is nowhere else once the journal is not replayed any more."""
    store = sound.rig.group.store
    with store.write() as write:
        cursor = write.cursor("records")
        cursor.next()
        cursor.next()
        key, value = bytes(cursor.key()), bytes(cursor.value())
        write.put("records", key, value[:-1] + bytes([value[-1] ^ 1]))
    (damage,) = sound.verify(deep=True).damage
    assert "record" in damage.message
    with store.write() as write:
        write.delete("records", key)
    assert len(sound.verify(deep=True).damage) == 1


def test_reading_a_damaged_block_is_an_error_and_never_other_bytes(sound: Sound) -> None:
    prefix = sound.prefixes[1]
    sound.flip(prefix, prefix.frame_bytes - 5)
    view = sound.rig.live("root")
    with view.batch() as batch:
        for block in range(BLOCKS):
            if block == 2:
                with pytest.raises(Corruption, match="do not match the index"):
                    view.read_block(batch, block)
            else:
                assert len(view.read_block(batch, block)) == BLOCK_BYTES


def test_the_list_of_damage_is_bounded() -> None:
    found = Verified()
    for _ in range(DAMAGE_MAX + 5):
        found.add(Fault.ROW, 0, 1, 2, 3)
    assert len(found.damage) == DAMAGE_MAX
    assert found.missed == 5
