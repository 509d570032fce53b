"""The retention lock of one group at one site: what may not be given up yet, whoever asks for it.

It reads this site's own settings, its own notes (engine.retention.lock_notes) and its own clock
(engine.retention.lock_clock), and nothing that a peer or an operator can send changes how it decides:

    lock_window_s    every cut that was the group's newest one within that time, here, can be read. So the
                     journal is not truncated past where it ended then, a backup that was deleted since keeps
                     its cut, and a branch that was left since is not dropped
    CopyLocked       a backup is neither deleted nor loses its cut for so long after the event came here

All that is not noted yet counts as having come just now: after a crash, and when a lock is first set, locks
hold longer and never shorter. What the lock keeps beyond `journal_limit_bytes` hosts have to wait for: they
get ENOSPC (docs/decisions/0017).

Example of why the times of frames do not matter: the writer sets them. A peer whose frames all say 1970
would have them truncated as they come.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from engine.copies.copies import Copy
from engine.copies.copy_order import Place
from engine.group.core import GroupCore
from engine.history.bases import common_end
from engine.history.branches import Branch, branches
from engine.retention.lock_clock import LOCK_TABLE, LockClock
from engine.retention.lock_notes import BranchNote, LockMark, LockNotes, notes_in
from protocol.cut_text import time_text
from protocol.errors import FarshoreError, Locked
from protocol.limits import LOCK_MARK_S_MIN, LOCK_MARKS_A_WINDOW
from protocol.positions import POSITION_MAX, timeline_text

NS = 1_000_000_000
LOOK_EVERY_S = 1.0


class RetentionLock:
    """Says of one group what may not be given up yet, and refuses to."""

    def __init__(self, group: GroupCore) -> None:
        self._group = group
        self._clock = LockClock(group.state, group.clock)
        self._notes = LockNotes()
        self._stored: dict[bytes, bytes] = {}
        self._look_at_s = 0.0
        self._left: dict[int, int] = {}  # ends of what is not the head, when branches were last looked for
        self._head = 0
        self._failing = False
        self._seen_of: tuple[object, ...] = ()  # what was said of copies when `_notes.seen` was made
        self._written: LockNotes | None = None  # what is stored, once this run has stored any
        self._ends: list[int] = []  # when a deletion begins to give up its cut, or a lock ends
        self._ends_of: tuple[object, ...] = ()
        self._ends_made = 0  # how often

    @property
    def window_ns(self) -> int:
        """How long any cut can be read; 0: this site has no such lock."""
        return round(self._group.settings.lock_window_s * NS)

    def load(self) -> None:
        """Take up what is noted."""
        group = self._group
        self._stored = group.state.notes(LOCK_TABLE, group.name.encode() + b"\0")
        self._notes, bad = notes_in(group.name, self._stored)
        self._clock.load(self._notes.newest_ns)
        if bad:
            group.emit("row.set_aside", group=group.name, error=f"{bad} notes of the retention lock are bad")

    # -- noting

    def look(self) -> None:
        """Note what there is now; durable before long. What cannot be written down holds meanwhile."""
        group = self._group
        now_s = group.clock.monotonic()
        if now_s < self._look_at_s or not (self.window_ns or group.copies.has_locks or self._stored):
            return
        self._look_at_s = now_s + LOOK_EVERY_S
        now_ns = self._clock.now_ns()
        self._notes = LockNotes(
            marks=self._marks(now_ns), seen=self._seen(now_ns), branches=self._branches(now_ns)
        )
        try:
            self._store()
        except (FarshoreError, OSError) as error:
            if not self._failing:
                group.emit("lock.not_noted", group=group.name, error=str(error))
            self._failing = True
        else:
            self._failing = False

    def _store(self) -> None:
        if self._notes == self._written and not self._failing:
            if self._clock.due:
                self._clock.save_with({})
            return
        rows = self._notes.rows(self._group.name)
        news = {key: value for key, value in rows.items() if self._stored.get(key) != value}
        if news or self._clock.due:
            self._clock.save_with(news)
            self._stored |= news
        gone = self._stored.keys() - rows.keys()
        if gone:
            self._group.state.remove_notes(LOCK_TABLE, gone)
            self._stored = rows
        self._written = self._notes

    def _marks(self, now_ns: int) -> tuple[LockMark, ...]:
        """Where the journal ended, often enough within the window, and once before it."""
        window_ns, marks, end = self.window_ns, list(self._notes.marks), self._group.end
        if not window_ns:
            return ()
        apart_ns = max(window_ns // LOCK_MARKS_A_WINDOW, round(LOCK_MARK_S_MIN * NS))
        if not marks or (marks[-1].cut != end and now_ns - marks[-1].ns >= apart_ns):
            marks.append(LockMark(now_ns, end))
        old = sum(mark.ns <= now_ns - window_ns for mark in marks)
        return tuple(marks[max(0, old - 1) :])

    def _seen(self, now_ns: int) -> Mapping[Place, int]:
        group, before = self._group, self._notes.seen
        of = (self.window_ns, *group.copies.said(group.spans(), group.writer.durable))
        if of == self._seen_of:
            return before
        places = {place for place, _ in group.copies.lock_times()}
        if self.window_ns or group.copies.has_locks:
            for copy, deletion in group.copies.given_up(group.spans(), group.writer.durable):
                places.add(deletion)
                if deletion not in before and self.locked(copy.id):
                    self._defied(copy)
        self._seen_of = of
        return {place: before.get(place, now_ns) for place in sorted(places)}

    def _defied(self, copy: Copy) -> None:
        """A writer that honours the lock would not have said so: its clock is ahead, or it is hostile."""
        group = self._group
        until = time_text(self.until_utc_ns(copy.id))
        group.emit("lock.defied", group=group.name, object=copy.name, position=str(copy.cut), until=until)

    def _branches(self, now_ns: int) -> dict[int, BranchNote]:
        group, before = self._group, self._notes.branches
        if not self.window_ns:
            return {}
        clones = group.clone_timelines()
        left = {timeline: end for timeline, end in group.head.left.items() if timeline not in clones}
        if (left, group.head.timeline) == (self._left, self._head):
            return dict(before)
        self._left, self._head = left, group.head.timeline
        found = {}
        for branch in branches(group):
            note = before.get(branch.timeline)
            same = note is not None and note.end == branch.end.position
            found[branch.timeline] = note if note and same else BranchNote(branch.end.position, now_ns)
        return found

    # -- deciding

    def limit(self) -> int:
        """The position of the head's lineage from which on every cut must stay readable."""
        window_ns = self.window_ns
        if not window_ns:
            return POSITION_MAX
        group, now_ns = self._group, self._clock.now_ns()
        old = [mark for mark in self._notes.marks if mark.ns <= now_ns - window_ns]
        if not old or old[-1].cut.timeline not in group.timelines:
            return 0
        cut = old[-1].cut
        return common_end(group.timelines.lineage(cut.timeline, cut.position), group.spans())

    def gave_up(self, deletion: Place) -> bool:
        """See `CopyLock.gave_up`."""
        window_ns = self.window_ns
        if not window_ns:
            return True
        seen_ns = self._notes.seen.get(deletion)
        return seen_ns is not None and self._clock.now_ns() - seen_ns >= window_ns

    @property
    def waits(self) -> bool:
        """See `CopyLock.waits`."""
        return self.window_ns > 0

    @property
    def moment(self) -> tuple[object, ...]:
        """See `CopyLock.moment`."""
        copies, window_ns, seen = self._group.copies, self.window_ns, self._notes.seen
        if not window_ns and not copies.has_locks:
            return ()
        # What was seen is the same object while it has not changed, and is not compared with itself.
        of = (window_ns, copies.revision, seen)
        if of != self._ends_of:
            self._ends_made += 1
            ends = [seen_ns + window_ns for seen_ns in seen.values()] if window_ns else []
            ends += [seen[place] + lock_s * NS for place, lock_s in copies.lock_times() if place in seen]
            self._ends = sorted(ends)
        self._ends_of = of
        return self._ends_made, bisect_right(self._ends, self._clock.now_ns())

    def locked(self, copy_id: int) -> bool:
        """See `CopyLock.locked`."""
        return self.left_ns(copy_id) > 0

    def left_ns(self, copy_id: int) -> int:
        """How much longer a backup is locked; 0 if it is not."""
        locks = self._group.copies.locks_of(copy_id)
        if not locks:
            return 0
        now_ns, seen = self._clock.now_ns(), self._notes.seen
        return max(0, max(seen.get(place, now_ns) + lock_s * NS - now_ns for place, lock_s in locks.items()))

    def until_utc_ns(self, copy_id: int) -> int:
        """When that ends, by the wall clock and if the machine stays up; 0 if the backup is not locked."""
        left_ns = self.left_ns(copy_id)
        return self._group.clock.utc_ns() + left_ns if left_ns else 0

    def ends_utc_ns(self) -> list[int]:
        """When the locks of those backups end that are locked now, as `until_utc_ns`."""
        ids = self._group.copies.ever_locked()
        return [end_ns for copy_id in ids if (end_ns := self.until_utc_ns(copy_id))]

    # -- refusing

    def require_unlocked(self, copy: Copy, what: str) -> None:
        """Locked while a backup is; `what` cannot be done with it then."""
        name, until_ns = self._group.name, self.until_utc_ns(copy.id)
        if until_ns:
            raise Locked(
                f"backup {copy.name} of {name} is locked until {time_text(until_ns)}: it cannot be {what}",
                subject=f"{name}@{copy.name}",
                position=str(copy.cut),
                next_step=f"wait: nobody can lift a lock; `farshore backup list {name}` says when it ends",
            )

    def require_droppable(self, branch: Branch) -> None:
        """Locked while a branch holds a locked backup, its cut or its lock, or the cut of a backup that was
        deleted elsewhere and keeps it; and if it was left within the lock's window. A clone may go: nothing
        of the group's history is in it alone. Backups that only the branch knows go with it."""
        group, starts = self._group, branch.starts

        def inside(place: Place) -> bool:
            return place[0] in starts and place[1] >= starts[place[0]]

        kept = group.copies.retained(group.spans(), group.writer.durable) if self.window_ns else frozenset()
        for copy in group.copies.every() if self.window_ns or group.copies.has_locks else ():
            own = inside((copy.timeline, copy.position))
            shown = inside((copy.cut.timeline, copy.cut.position - 1))
            if own or shown or any(map(inside, group.copies.locks_of(copy.id))):
                self.require_unlocked(copy, "dropped with its branch")
            if shown and not own and copy.cut in kept:
                raise Locked(
                    f"backup {copy.name} shows a cut of the branch, which this site keeps until "
                    f"{group.settings.lock_window_s:g} s after the backup was deleted (lock_window_s)",
                    subject=group.name,
                    position=str(copy.cut),
                    next_step="wait: nobody can shorten that",
                )
        if not self.window_ns or branch.timeline in group.clone_timelines():
            return
        note, now_ns = self._notes.branches.get(branch.timeline), self._clock.now_ns()
        since_ns = note.ns if note is not None and note.end == branch.end.position else now_ns
        left_ns = since_ns + self.window_ns - now_ns
        if left_ns > 0:
            until = time_text(group.clock.utc_ns() + left_ns)
            raise Locked(
                f"branch {timeline_text(branch.timeline)} of {group.name} is locked until {until}: this site "
                f"keeps what it held for {group.settings.lock_window_s:g} s (lock_window_s)",
                subject=group.name,
                position=str(branch.end),
                next_step="wait: nobody can shorten that; the branch can be read and restored from meanwhile",
            )

    def why(self, lack: str) -> str:
        """Why there is no room in the journal, with the lock's part in it."""
        limit = self.limit()
        if not lack or limit >= self._group.writer.durable:
            return lack
        kept = self._group.writer.written - limit
        return f"{lack}; the retention lock keeps the newest {kept} bytes (lock_window_s)"
