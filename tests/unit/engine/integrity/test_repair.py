"""Every single damage is mended to the very bytes that were there, and what cannot be stays on the list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from engine.group.group import Group
from engine.index.requests import IndexRequest
from engine.index.view import ZERO_BLOCK
from engine.integrity.faults import Damage, Fault
from engine.integrity.repair import PEER_WAITS, Repair
from protocol.errors import Busy, FarshoreError, Mismatch, NotFound, Unreachable, WrongState
from protocol.events import ZERO
from protocol.frames import Frame
from protocol.positions import Cut
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import GroupRig, follow
from tests.unit.engine.integrity.test_verify_rounds import begin, finish
from tests.unit.engine.retention.test_reclaim import KEEP_ALL, KEEP_NOTHING, fill

pytestmark = pytest.mark.usefixtures("run_sizes")

MakeRig = Callable[..., GroupRig]


class OtherSite:
    """A group elsewhere that answers from its journal and its cuts."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.asked: list[str] = []
        self.cuts: list[Cut] = []
        self.refusals: list[FarshoreError] = []  # of blocks, before there are answers

    async def frames(self, timeline: int, start: int, end: int) -> AsyncIterator[Frame]:
        self.asked.append("frames")
        for frame in self.rig.group.reader.frames(timeline, start, end, None):
            yield frame

    async def blocks_at(self, volume: int, cut: Cut, blocks: Sequence[int]) -> list[bytes | None]:
        self.asked.append("blocks")
        self.cuts.append(cut)
        if self.refusals:
            raise self.refusals.pop(0)
        group = self.rig.group
        group.kept.require(cut)
        spans = group.timelines.lineage(cut.timeline, cut.position)
        (name,) = [each.name for each in group.volumes.at(spans).values() if each.id == volume]
        view = group.kept.view_at(name, cut)
        with view.batch() as batch:
            return [view.read_block(batch, block) for block in blocks]


async def ask(group: Group, request: IndexRequest) -> tuple[int, ...]:
    answers: list[tuple[Exception | None, tuple[int, ...]]] = []
    group.checkpoints.indexer.start(request, lambda error, figures: answers.append((error, figures)))
    ((error, figures),) = answers
    if error is not None:
        raise error
    return figures


def mend(rig: GroupRig, source: OtherSite | None) -> list[Damage]:
    """Mend everything known; what is left."""

    async def run() -> None:
        mender = Repair(rig.group, source, ask)
        waiting = rig.group.damage.all()
        for damage in waiting:
            try:
                behind = await mender.mend(damage)
            except FarshoreError:
                continue
            rig.group.damage.mended([damage])
            rig.group.damage.found(behind)
            waiting += behind

    asyncio.run(run())
    return rig.group.damage.all()


def look(rig: GroupRig) -> list[Damage]:
    return finish(rig, begin(rig))


def tables(rig: GroupRig) -> dict[tuple[str, bytes], bytes]:
    found = {}
    for table in ("versions", "blocks", "records"):
        with rig.group.store.read() as read:
            cursor = read.cursor(table)
            while cursor.next():
                found[table, bytes(cursor.key())] = bytes(cursor.value())
    return found


def put(rig: GroupRig, table: str, key: bytes, value: bytes | None) -> None:
    with rig.group.store.write() as write:
        if value is None:
            write.delete(table, key)
        else:
            write.put(table, key, value)


@pytest.fixture
def two(make_rig: MakeRig) -> tuple[GroupRig, OtherSite]:
    """A group with a journal of several files, and the same at another site; nothing is truncated."""
    rig = make_rig(settings=KEEP_ALL)
    volume = rig.create("root", 16)
    fill(rig, volume, 2)
    take_backup(rig.group, volume=None, label="early", cut=None, pinned=False, rng=rig.rng)
    rig.append([(ZERO, volume, 3, 2)])
    take_backup(rig.group, volume=None, label="kept", cut=None, pinned=False, rng=rig.rng)
    other = make_rig("two", site="par", settings=KEEP_ALL)
    follow(rig, other)
    other.sync()
    other.checkpoint()
    assert look(rig) == []
    return rig, OtherSite(other)


@pytest.fixture
def truncated(two: tuple[GroupRig, OtherSite]) -> tuple[GroupRig, OtherSite]:
    """The same, truncated here: what the backup shows is stored, and a tombstone."""
    rig, other = two
    volume = rig.group.volume("root").id
    fill(rig, volume, 2)
    follow(rig, other.rig)
    other.rig.sync()
    other.rig.checkpoint()
    rig.group.settings = KEEP_NOTHING
    rig.settle(10.0)
    rig.group.settings = KEEP_ALL
    assert look(rig) == []
    return rig, other


def file_of(rig: GroupRig, position: int) -> tuple[Path, int]:
    segment = rig.group.segments.segment_at(rig.group.head.timeline, position)
    assert segment is not None
    return rig.directory / "g" / segment.path, position - segment.start


def test_a_frame_flipped_anywhere_is_mended(two: tuple[GroupRig, OtherSite]) -> None:
    rig, other = two
    prefixes = list(rig.group.reader.prefixes(rig.group.head.timeline, 0, rig.end.position))
    before = rig.files()
    for prefix in (prefixes[0], prefixes[20], prefixes[-3]):
        for offset in (0, 17, 25, 49, 73, prefix.frame_bytes - 1):
            path, start = file_of(rig, prefix.position)
            with path.open("r+b") as file:
                file.seek(start + offset)
                byte = file.read(1)[0]
                file.seek(-1, 1)
                file.write(bytes([byte ^ 1]))
            assert Fault.FRAME in {damage.fault for damage in look(rig)}
            assert mend(rig, other) == []
            assert rig.files() == before
            assert look(rig) == []


@pytest.mark.parametrize("keep_bytes", [None, 0, 5000])
def test_a_file_that_is_gone_or_cut_short_is_made_again(
    two: tuple[GroupRig, OtherSite], keep_bytes: int | None
) -> None:
    rig, other = two
    path = rig.segment_files()[1]
    whole = path.read_bytes()
    letters = rig.letters("root")
    if keep_bytes is None:
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.truncate(keep_bytes)
    assert look(rig)
    assert mend(rig, other) == []
    assert path.read_bytes()[: len(whole)] == whole
    assert look(rig) == []
    assert rig.letters("root") == letters


def test_frames_that_do_not_fit_are_not_written(two: tuple[GroupRig, OtherSite]) -> None:
    rig, other = two
    prefixes = list(rig.group.reader.prefixes(rig.group.head.timeline, 0, rig.end.position))
    path, start = file_of(rig, prefixes[20].position)
    with path.open("r+b") as file:
        file.seek(start + prefixes[20].frame_bytes - 1)
        file.write(b"!")
    damaged = path.read_bytes()
    (frame, *_) = [damage for damage in look(rig) if damage.fault is Fault.FRAME]
    wrong = Damage(Fault.FRAME, (frame.place[0], frame.place[1], prefixes[21].end + 8, 0))

    async def run() -> None:
        mender = Repair(rig.group, other, ask)
        with pytest.raises(Mismatch, match="do not fit"):
            await mender.mend(wrong)
        with pytest.raises(NotFound, match="no peer"):
            await Repair(rig.group, None, ask).mend(frame)

    asyncio.run(run())
    assert path.read_bytes() == damaged
    assert frame in mend(rig, None)
    assert mend(rig, other) == []


def test_rows_of_what_is_in_the_journal_are_mended_without_a_peer(two: tuple[GroupRig, OtherSite]) -> None:
    rig, _ = two
    before = tables(rig)
    assert {table for table, _ in before} == {"versions", "records"}
    for (table, key), value in list(before.items())[-12:] + list(before.items())[:12]:
        for changed in (None, value[:-1] + bytes([value[-1] ^ 1]), bytes([value[0] ^ 1]) + value[1:], b"xx"):
            if changed is None and value[0] == 2:
                continue  # a tombstone that is gone, under which nothing lies, is no damage
            put(rig, table, key, changed)
            found = look(rig)
            assert found, (table, key, changed)
            assert mend(rig, None) == []
            assert tables(rig) == before


def test_what_is_stored_is_mended_from_the_peer(truncated: tuple[GroupRig, OtherSite]) -> None:
    rig, other = truncated
    before = tables(rig)
    stored = [(table, key) for table, key in before if table == "blocks"]
    seen = 0
    for _, key in stored:
        for table in ("blocks", "versions"):
            value = before[table, key]
            for changed in (None, value[:-1] + bytes([value[-1] ^ 1]), bytes([value[0] ^ 1]) + value[1:]):
                put(rig, table, key, changed)
                if not look(rig):
                    raise AssertionError((table, key, changed))
                left = mend(rig, other)
                if tables(rig) == before:
                    seen += 1
                    assert left == []
                else:
                    # Nobody sees this version at a cut that is kept: nothing can say what it was.
                    assert left
                    put(rig, table, key, value)
                    assert mend(rig, None) == []
    assert seen >= 6 * 5
    assert "blocks" in other.asked


def test_a_tombstone_whose_row_is_damaged_is_mended(truncated: tuple[GroupRig, OtherSite]) -> None:
    rig, other = truncated
    before = tables(rig)
    zeroes = [key for (table, key), value in before.items() if table == "versions" and value[0] == 2]
    assert zeroes
    for key in zeroes:
        put(rig, "versions", key, b"\2\0\0\0\0")
        assert [damage.fault for damage in look(rig)] == [Fault.ROW]
        assert mend(rig, other) == []
        assert tables(rig) == before
    copy = rig.group.copies.find(rig.group.spans(), "kept", "g")
    view = rig.group.kept.view_at("root", copy.cut)
    with view.batch() as batch:
        assert view.read_block(batch, 3) == ZERO_BLOCK


@pytest.fixture
def stored(
    truncated: tuple[GroupRig, OtherSite], monkeypatch: pytest.MonkeyPatch
) -> tuple[GroupRig, OtherSite, Damage]:
    """A stored block is damaged that every one of several cuts shows; a peer that is busy is asked at once
    again."""
    monkeypatch.setattr("engine.integrity.repair.PEER_WAIT_S", 0.0)
    rig, other = truncated
    for label in ("more", "most"):
        take_backup(rig.group, volume=None, label=label, cut=None, pinned=False, rng=rig.rng)
    follow(rig, other.rig)
    for table, key in [each for each in tables(rig) if each[0] == "blocks"]:
        value = tables(rig)[table, key]
        put(rig, table, key, value[:-1] + bytes([value[-1] ^ 1]))
        (damage,) = look(rig)
        if len(list(Repair(rig.group, other, ask)._cuts(damage))) > 2:
            return rig, other, damage
        put(rig, table, key, value)
        assert mend(rig, None) == []
    raise AssertionError("no such block")


def test_a_peer_that_is_away_is_asked_for_one_cut(stored: tuple[GroupRig, OtherSite, Damage]) -> None:
    """Each cut of thousands waited for the same silence before it was known."""
    rig, other, damage = stored
    other.refusals = [Unreachable("par does not answer")] * 2
    with pytest.raises(Unreachable):
        asyncio.run(Repair(rig.group, other, ask).mend(damage))
    assert len(other.cuts) == 1


def test_a_peer_that_is_busy_is_asked_for_the_same_cut_again(
    stored: tuple[GroupRig, OtherSite, Damage],
) -> None:
    rig, other, _ = stored
    other.refusals = [Busy("too many questions wait")] * PEER_WAITS
    assert mend(rig, other) == []
    assert len(other.cuts) == PEER_WAITS + 1
    assert len(set(other.cuts)) == 1


def test_a_peer_that_stays_busy_is_not_asked_for_ever(stored: tuple[GroupRig, OtherSite, Damage]) -> None:
    rig, other, damage = stored
    other.refusals = [Busy("too many questions wait")] * 1000
    with pytest.raises(Busy):
        asyncio.run(Repair(rig.group, other, ask).mend(damage))
    assert len(other.cuts) == PEER_WAITS + 1
    assert len(set(other.cuts)) == 1


def test_a_peer_that_is_behind_is_waited_for_once(stored: tuple[GroupRig, OtherSite, Damage]) -> None:
    """Then a cut that it has come to is looked for without waiting for each."""
    rig, other, damage = stored
    cuts = list(Repair(rig.group, other, ask)._cuts(damage))
    other.refusals = [WrongState("past the end")] * (PEER_WAITS + 2)
    assert mend(rig, other) == []
    assert other.cuts == [cuts[0]] * (PEER_WAITS + 1) + cuts[1:3]
