"""The retention lock against whatever a peer, an operator and a clock may do, at random.

The peer is hostile: it knows every digest, leaves any cut with a timeline of its own (as with `adopt`), lies
about times and durability, unpins, deletes, sets windows to nothing. The oracle counts real time: every cut
that was the site's newest one less than the window ago reads as it did, a deleted backup keeps its cut for as
long, and a locked one keeps its row too until its lock's time.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence

import pytest
from msgspec import structs

from engine.copies.keep_rules import KeepRules
from engine.copies.pruning import plan_prune
from engine.group.head_moves import begin_timeline
from engine.group.settings import GroupSettings
from engine.history.branch_drop import BranchDrops, check_droppable
from engine.history.branches import branches
from engine.history.volumes import Volume
from protocol.errors import Busy, Locked, Refused
from protocol.events import (
    NO_POLICY,
    WRITE,
    Consistency,
    CopyDeleted,
    CopyLocked,
    CopyPinned,
    Mark,
    Record,
    Revert,
    TimelineBegan,
)
from protocol.frames import encode_frame
from protocol.limits import BLOCK_BYTES
from protocol.positions import POSITION_MAX, Cut
from site_primary.backup import delete_backups
from tests.sim.world import UTC_START_NS
from tests.unit.engine.group_rig import GroupRig, filled, memory_directory

BLOCKS = 8
NS = 1_000_000_000
WINDOW_S = 60
SETTINGS = GroupSettings(
    journal_limit_bytes=POSITION_MAX, reserve_bytes=0, window_s=0.0, window_bytes=0, lock_window_s=WINDOW_S
)
SEEDS = range(int(os.environ.get("FARSHORE_LOCK_SEEDS", "6")))
STEPS = 160


class Attack:
    """One site, and all that happens to it."""

    def __init__(self, seed: int, rig: GroupRig) -> None:
        self.rng = random.Random(f"attack {seed}")  # not the site's own: ids of timelines would collide
        self.rig = rig
        self.past: dict[Cut, str] = {}
        self.last_seen_ns: dict[Cut, int] = {}  # real time at which a cut was the newest one
        self.alive_ns: dict[int, int] = {}  # by copy: when it was last undeleted
        self.locked_ns: dict[int, int] = {}  # by copy: until when
        self.cuts: dict[int, Cut] = {}  # of copies
        self.refused = self.checked = self.let_go = 0
        self.volume: Volume = self._new_volume()

    def _new_volume(self) -> Volume:
        self.rig.create("root", BLOCKS)
        return self.rig.group.volume("root")

    @property
    def now_ns(self) -> int:
        return self.rig.world.now_ns

    def note(self) -> None:
        """What is so now."""
        end = self.rig.end
        if end not in self.past:
            self.past[end] = self.rig.letters("root")
        self.last_seen_ns[end] = self.now_ns
        deleted = self._deleted()
        for copy_id in self.cuts.keys() - deleted:
            self.alive_ns[copy_id] = self.now_ns

    def _deleted(self) -> set[int]:
        return {copy_id for copy_id in self.cuts if self.rig.group.copies.was_deleted(copy_id)}

    def some_cut(self) -> Cut:
        """A moment of the head's past that can be read."""
        found = [cut for cut in self.past if self.rig.group.holds_cut(cut) and self.readable(cut)]
        return self.rng.choice(sorted(found, key=lambda cut: (cut.position, cut.timeline)))

    def readable(self, cut: Cut) -> bool:
        group = self.rig.group
        return cut.timeline in group.timelines and group.kept.readable(cut)

    # -- the peer

    def send(self, records: Sequence[Record] = (), blocks: Sequence[int] = ()) -> None:
        """A frame of the peer's: one that goes on, or leaves where it likes first."""
        group = self.rig.group
        own = group.timelines.get(group.head.timeline).writer == "par"
        if own or self.rng.random() < 0.08:
            self._leave()
        if records:
            self._frame(
                group.head.timeline,
                group.end.position,
                group.head.digest,
                [each.to_row() for each in records],
            )
        if blocks:
            rows = [(WRITE, self.volume.id, block, 1) for block in blocks]
            payload = [filled(bytes([97 + self.rng.randrange(26)])) for _ in blocks]
            self._frame(group.head.timeline, group.end.position, group.head.digest, rows, payload)

    def _leave(self) -> None:
        """Begin a timeline at a cut of the past, which has the volume."""
        group = self.rig.group
        fork = group.end if self.rng.random() < 0.5 else self.some_cut()
        began = TimelineBegan(
            parent=fork.timeline,
            fork=fork.position,
            generation=group.generation + 1,
            writer="lon",
            group="g",
            sealed=self.rng.random() < 0.5,
        )
        digest = group.reader.digest_at(group.timelines, fork.timeline, fork.position)
        if fork == group.end:
            digest = group.head.digest
        self._frame(self.rng.getrandbits(64) | 1, fork.position, digest, [began.to_row()])

    def _frame(
        self,
        timeline: int,
        position: int,
        digest: bytes,
        rows: Sequence[tuple[object, ...]],
        payload: Sequence[bytes] = (),
    ) -> None:
        group = self.rig.group
        # The peer says whatever helps: that all is durable, and that it is long past.
        late_ns = self.rng.choice((0, 0, 0, 10**15))
        utc_ns = max(group.head.utc_ns + late_ns, UTC_START_NS - 10**17)
        frame = encode_frame(
            timeline=timeline,
            position=position,
            utc_ns=utc_ns,
            durable=position,
            previous_digest=digest,
            rows=rows,
            payload=payload,
            payload_bytes=len(payload) * BLOCK_BYTES,
        )
        group.follow(frame.prefix, bytes(frame.raw), leave=True)
        self.note()

    def write(self) -> None:
        for _ in range(self.rng.randint(1, 6)):
            self.send(blocks=[self.rng.randrange(BLOCKS) for _ in range(self.rng.randint(1, 3))])
        self.rig.sync()

    def mark(self) -> None:
        """A backup, of now or of a moment before, locked or not."""
        group, copy_id = self.rig.group, self.rng.getrandbits(64)
        cut = self.some_cut() if self.rng.random() < 0.3 else None
        mark = Mark(
            copy_id=copy_id,
            label="",
            cut=cut,
            volumes=(self.volume.id,),
            consistency=Consistency.CRASH,
            pinned=self.rng.random() < 0.5,
        )
        self.send([mark])
        if cut is not None and not self.readable(cut):
            return
        copy = group.copies.find(group.spans(), f"{copy_id:016x}", "g")
        if copy.cut in self.past:
            self.cuts[copy_id] = copy.cut
            self.alive_ns[copy_id] = self.now_ns
        if self.rng.random() < 0.4:
            self.lock()

    def lock(self) -> None:
        copy_id = self._some_copy()
        if copy_id is not None and self.readable(self.cuts[copy_id]):
            lock_s = self.rng.choice((1, 30, 200))
            self.send([CopyLocked(copy_id=copy_id, lock_s=lock_s)])
            until_ns = self.now_ns + lock_s * NS
            self.locked_ns[copy_id] = max(until_ns, self.locked_ns.get(copy_id, 0))

    def _some_copy(self) -> int | None:
        return self.rng.choice(sorted(self.cuts)) if self.cuts else None

    def erase(self) -> None:
        """All that a peer can say to be rid of backups and history."""
        records: list[Record] = []
        for copy_id in sorted(self.cuts):
            if self.rng.random() < 0.7:
                records += [CopyPinned(copy_id=copy_id, pinned=False), CopyDeleted(copy_id=copy_id)]
        window_bytes = self.rng.choice((0, 1))
        self.send([*records, structs.replace(NO_POLICY, window_s=0, window_bytes=window_bytes)])

    def turn_back(self) -> None:
        group = self.rig.group
        cut = self.some_cut()
        own = group.timelines.get(group.head.timeline).writer == "par"
        if not own and group.holds_cut(cut):
            revert = [Revert(volume=self.volume.id, cut=cut).to_row()]
            self._frame(group.head.timeline, group.end.position, group.head.digest, revert)

    # -- operators, and the machine

    def take_over(self) -> None:
        begin_timeline(self.rig.group, authority=True)
        self.rig.write(self.volume.id, self.rng.randrange(BLOCKS), b"o")
        self.rig.sync()

    def command(self) -> None:
        """An operator's account in the wrong hands."""
        group = self.rig.group
        for name in [branch.timeline for branch in branches(group)]:
            branch = next((each for each in branches(group) if each.timeline == name), None)
            try:
                if branch is not None:
                    check_droppable(group, branch)
            except (Locked, Busy, Refused):
                self.refused += 1
                continue
            if branch is not None:
                BranchDrops(group, lambda _: None).begin(branch)
                assert self.rig.world.run_until(lambda: not group.dropping)
                self._forget_unlocked()
        if self.rng.random() < 0.3:
            self.take_over()
            self.note()
            doomed = plan_prune(group, KeepRules(1, 0, 0, 0, 0, 0), labelled=True).deleted
            try:
                delete_backups(group, doomed)
            except (Locked, Refused):
                self.refused += 1

    def _forget_unlocked(self) -> None:
        """Backups that only a branch has go with it, once it may go."""
        there = {copy.id for copy in self.rig.group.copies.every()}
        for copy_id in self.cuts.keys() - there:
            if self.locked_ns.get(copy_id, 0) <= self.now_ns:
                del self.cuts[copy_id], self.alive_ns[copy_id]
                self.locked_ns.pop(copy_id, None)

    def jump(self) -> None:
        self.rig.clock.jump(self.rng.choice((-1, 1)) * self.rng.choice((1, 3600, 10**8)))

    def restart(self) -> None:
        self.rig.sync()
        if self.rng.random() < 0.5:
            self.rig.world.reboot()
        self.rig.reopen()
        self.jump()

    def pass_time(self) -> None:
        self.rig.sync()
        self.rig.settle(self.rng.choice((0.5, 3.0, 10.0, 40.0)))

    def sweep(self) -> None:
        self.rig.group.reclaim.sweep()
        self.rig.settle(1.0)

    def step(self) -> None:
        steps: tuple[tuple[int, Callable[[], object]], ...] = (
            (40, self.write), (6, self.mark), (3, self.lock), (5, self.erase), (3, self.turn_back),
            (2, self.take_over), (4, self.command), (4, self.jump), (3, self.restart), (12, self.pass_time),
            (2, self.sweep), (4, self.rig.checkpoint),
        )  # fmt: skip
        self.rng.choices([do for _, do in steps], [weight for weight, _ in steps])[0]()
        self.note()

    # -- what must hold

    def check(self) -> None:
        group = self.rig.group
        due_ns = self.now_ns - WINDOW_S * NS
        must = {cut for cut, seen_ns in self.last_seen_ns.items() if seen_ns > due_ns}
        must |= {self.cuts[copy_id] for copy_id, alive_ns in self.alive_ns.items() if alive_ns > due_ns}
        locked = [copy_id for copy_id, until_ns in self.locked_ns.items() if until_ns > self.now_ns]
        must |= {self.cuts[copy_id] for copy_id in locked}
        for cut in must:
            assert self.readable(cut), f"{cut} is gone"
            assert self.rig.letters("root", cut) == self.past[cut], cut
        self.checked += len(must)
        spans, durable, nobody = group.spans(), group.writer.durable, {-1}
        kept = group.copies.retained(spans, durable)
        assert kept == group.copies.retained(spans, durable, without=nobody), "worked out anew"
        self.let_go += sum(not self.readable(cut) for cut in self.past)
        copies = list(group.copies.every())
        listed = {copy.id for copy in group.copies.at(group.spans())}
        on_head = {each.id for each in copies if group.holds_cut(Cut(each.timeline, each.position + 1))}
        for copy_id in locked:
            assert any(copy.id == copy_id for copy in copies)
            assert copy_id in listed or copy_id not in on_head


@pytest.mark.usefixtures("tiny_segments")
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_locked_is_ever_lost(seed: int) -> None:
    directory = memory_directory()
    rig = GroupRig(directory, seed=seed, site="par", settings=SETTINGS)
    rig.open()
    try:
        attack = Attack(seed, rig)
        attack.note()
        for at in range(STEPS):
            attack.step()
            if at % 10 == 0:
                attack.check()
        attack.check()
        assert attack.checked > 100
        assert attack.let_go > 0  # and what is not locked goes
    finally:
        rig.drop()
        shutil.rmtree(directory)
