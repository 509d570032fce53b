"""Rounds of deep verification: all of it once, over restarts and truncations; and whom damage concerns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.copies.copies import Copy
from engine.index.versions import RECORD_KEY, STORED_HEAD_BYTES, VERSION_KEY, VERSION_VALUE
from engine.integrity.faults import Damage, DamagedVersion, Fault
from engine.integrity.verify_rounds import VerifyRound, last_round, load_round
from engine.integrity.verify_slices import IndexSlice, JournalSlice, VerifyIndex, VerifyJournal
from protocol.errors import Unsafe
from protocol.frames import FramePrefix
from site_primary.backup import take_backup
from tests.unit.engine.group_rig import GroupRig
from tests.unit.engine.retention.test_reclaim import fill, truncate, truncated_past_a_fork

pytestmark = pytest.mark.usefixtures("run_sizes")

MakeRig = Callable[..., GroupRig]


def begin(rig: GroupRig) -> VerifyRound:
    rig.sync()
    rig.checkpoint()
    end = rig.end
    return VerifyRound(
        group=rig.group, began_utc_ns=rig.group.clock.utc_ns(), target=end, indexed=end.position
    )


def test_what_is_found_during_a_round_is_told_from_before_although_the_clock_goes_back(rig: GroupRig) -> None:
    table = rig.group.damage
    before, during = (Damage(Fault.FRAME, (1, place, place + 1, 0)) for place in (10, 20))
    table.found([before])
    began_ns = table.moment_ns()
    rig.clock.jump(-86_400.0)
    table.found([during])
    assert table.not_found_since(began_ns) == [before]


def step(rig: GroupRig, at: VerifyRound) -> list[Damage] | None:
    """One slice; what it found, None at the end of the round."""
    request = at.next()
    if request is None:
        return None
    answers: list[tuple[Exception | None, tuple[int, ...]]] = []
    rig.indexer.start(request, lambda error, figures: answers.append((error, figures)))
    ((error, figures),) = answers
    assert error is None
    if isinstance(request, VerifyJournal):
        found = JournalSlice.from_figures(figures)
        at.took_journal(request, found)
        return [damage for damage in found.damage if at.still_here(damage)]
    assert isinstance(request, VerifyIndex)
    index = IndexSlice.from_figures(figures)
    at.took_index(index)
    return list(index.damage)


def finish(rig: GroupRig, at: VerifyRound) -> list[Damage]:
    found: list[Damage] = []
    while (damage := step(rig, at)) is not None:
        found += damage
    rig.group.damage.found(found)
    return found


def backup(rig: GroupRig, label: str) -> Copy:
    take_backup(rig.group, volume=None, label=label, cut=None, pinned=False, rng=rig.rng)
    return rig.group.copies.find(rig.group.spans(), label, "g")


def flip_in_file(rig: GroupRig, prefix: FramePrefix, offset: int) -> None:
    segment = rig.group.segments.segment_at(prefix.timeline, prefix.position)
    assert segment is not None
    path: Path = rig.directory / "g" / segment.path
    with path.open("r+b") as file:
        file.seek(prefix.position - segment.start + offset)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))


def change_stored(rig: GroupRig, change: Callable[[bytes], bytes | None]) -> bytes:
    """Change the bytes of the oldest version of the last stored block; its key."""
    with rig.group.store.write() as write:
        cursor = write.cursor("blocks")
        assert cursor.prev()
        key, value = bytes(cursor.key()), bytes(cursor.value())
        changed = change(value)
        if changed is None:
            write.delete("versions", key)
        else:
            write.put("blocks", key, changed)
    return key


def test_a_round_looks_at_everything_once(rig: GroupRig) -> None:
    volume = rig.create("root", 64)
    for turn in range(40):
        rig.write(volume, turn, b"a", b"b")
    rig.reopen()
    rig.write(volume, 3, b"c")
    at = begin(rig)
    assert finish(rig, at) == []
    assert at.journal_bytes == rig.end.position
    assert at.versions == 81
    at.end()
    assert last_round(rig.group) == (at.began_utc_ns, rig.group.clock.utc_ns())
    assert load_round(rig.group) is None


def test_a_round_goes_on_after_a_restart_and_past_what_was_truncated(rig: GroupRig) -> None:
    volume = rig.create("root", 16)
    fill(rig, volume, 2)
    at = begin(rig)
    at.slice_bytes = 64 << 10
    assert step(rig, at) == []
    at.save()
    truncate(rig)
    rig.reopen()
    again = load_round(rig.group)
    assert again is not None
    assert (again.position, again.digest, again.target) == (at.position, at.digest, at.target)
    rig.write(volume, 1, b"n")  # later than the round: not its business
    assert finish(rig, again) == []
    assert again.journal_bytes < at.target.position


def test_what_is_truncated_while_a_slice_waits_for_its_turn_is_not_missing(rig: GroupRig) -> None:
    volume = rig.create("root", 16)
    fill(rig, volume, 2)
    at = begin(rig)
    request = at.next()
    assert isinstance(request, VerifyJournal)
    truncate(rig)
    answers: list[tuple[int, ...]] = []
    rig.indexer.start(request, lambda _, figures: answers.append(figures))
    assert JournalSlice.from_figures(answers[0]).damage == ()


def test_a_flipped_byte_in_a_segment_concerns_those_who_see_the_block(rig: GroupRig) -> None:
    volume = rig.create("root", 8)
    before = backup(rig, "before")
    frame = rig.write(volume, 2, b"x", b"y")
    hit = backup(rig, "hit")
    rig.write(volume, 2, b"z", b"z")
    after = backup(rig, "after")
    at = begin(rig)
    flip_in_file(rig, frame.prefix, frame.prefix.frame_bytes - 1)
    found = finish(rig, at)
    assert {damage.fault for damage in found} == {Fault.FRAME, Fault.JOURNAL}
    damage = rig.group.damage
    assert [copy.label for copy, _ in damage.copies()] == ["hit"]
    assert damage.live() == []
    assert [at.covers(copy) for copy in (before, hit, after)] == [True] * 3
    with pytest.raises(Unsafe, match="backups affected: hit"):
        damage.require_sound([volume], hit.cut, "g/root")
    damage.require_sound([volume], before.cut, "g/root")
    damage.require_sound([volume], after.cut, "g/root")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda value: bytes([value[0] ^ 1]) + value[1:], Fault.STORED),
        (lambda value: value[: STORED_HEAD_BYTES - 1], Fault.STORED),
        (lambda _: None, Fault.ROW_MISSING),
    ],
)
def test_a_change_of_stored_bytes_is_found(
    rig: GroupRig, change: Callable[[bytes], bytes | None], fault: Fault
) -> None:
    volume = rig.create("root", 16)
    fill(rig, volume, 1)
    backup(rig, "kept")
    fill(rig, volume, 1)
    truncate(rig)
    at = begin(rig)
    key = change_stored(rig, change)
    lane, block_volume, block, _ = VERSION_KEY.unpack(key)
    (damage,) = finish(rig, at)
    assert (damage.fault, damage.version[:3]) == (fault, (lane, block_volume, block))
    assert [copy.label for copy, _ in rig.group.damage.copies()] == ["kept"]


def test_known_damage_outlives_a_restart_until_it_is_mended(rig: GroupRig) -> None:
    volume = rig.create("root", 8)
    rig.write(volume, 2, b"x")
    at = begin(rig)
    with rig.group.store.write() as write:
        cursor = write.cursor("versions")
        cursor.next()
        key, value = bytes(cursor.key()), bytes(cursor.value())
        write.put("versions", key, value[:-1] + bytes([value[-1] ^ 1]))
    view = rig.live("root")
    with view.batch() as batch, pytest.raises(DamagedVersion) as failed:
        view.read_block(batch, 2)
    rig.group.damage.read_failed(failed.value)
    assert rig.group.damage.live() == ["root"]
    assert rig.events[-1][0] == "damage.found"
    rig.reopen()
    (damage,) = rig.group.damage.all()
    assert damage.version == (0, volume, 2, VERSION_KEY.unpack(key)[3] ^ ((1 << 64) - 1))
    assert len(value) == VERSION_VALUE.size
    with rig.group.store.write() as write:
        write.put("versions", key, value)
    rig.settle(1.0)
    at = begin(rig)
    assert finish(rig, at) == []
    rig.group.damage.mended(rig.group.damage.not_found_since(at.began_utc_ns))
    assert rig.group.damage.all() == []
    rig.reopen()
    assert rig.group.damage.all() == []


def test_a_branch_that_was_truncated_past_its_fork_is_no_damage(make_rig: MakeRig) -> None:
    rig, _, _ = truncated_past_a_fork(make_rig)
    assert finish(rig, begin(rig)) == []


@pytest.mark.parametrize("kind", ["version", "record"])
def test_a_row_that_is_missing_below_the_floor_of_a_branch_is_found(make_rig: MakeRig, kind: str) -> None:
    """Nothing of the head's own was thinned, though it stands lower than where the branch was."""
    rig, fork, _ = truncated_past_a_fork(make_rig)
    (horizon,) = rig.group.kept.retention.horizons
    assert fork.position < rig.end.position < horizon.position
    at = begin(rig)
    with rig.group.store.write() as write:
        if kind == "version":
            cursor = write.cursor("versions")
            lane = rig.group.timelines.get(rig.group.head.timeline).lane
            assert cursor.set_range(VERSION_KEY.pack(lane, 0, 0, 0))
            write.delete("versions", bytes(cursor.key()))
        else:
            write.delete("records", RECORD_KEY.pack(rig.group.head.timeline, fork.position))
    (damage,) = finish(rig, at)
    assert damage.fault is (Fault.ROW_MISSING if kind == "version" else Fault.RECORD)
