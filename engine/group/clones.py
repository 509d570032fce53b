"""Clones: writable histories of this site's own that leave a group's history at a cut, and are never shipped.

A clone is a branch that grows: a timeline in a lane of its own, with its own segments and its own end, whose
versions lie in the group's memtable and index beside all others. So it costs what is written to it, whatever
the size of its volumes, and reading it is reading any other cut. It is not on the way to the head, so no
peer ever sees it.

How one is written to, `engine.group.open_clone` says. Its row goes after the note that its timelines are
being dropped (`engine.history.branch_drop`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from engine.group.clone_rows import CloneRow, clone_rows, remove_clone
from engine.group.core import GroupCore
from engine.group.open_clone import Clone
from engine.retention.kept import KeptHistory
from engine.retention.needed import same_name
from protocol.errors import Refused
from protocol.limits import CLONES_PER_GROUP_MAX


class Clones:
    """The clones of one group."""

    def __init__(self, group: GroupCore, kept: KeptHistory) -> None:
        self._group = group
        self._kept = kept
        self._open: dict[str, Clone] = {}

    def _rows(self) -> list[CloneRow]:
        return clone_rows(self._group.state, self._group.name)

    def known(self) -> set[int]:
        """Every timeline of a clone, as the site's state has them before `load`."""
        return {timeline for row in self._rows() for timeline in row.timelines}

    def load(self) -> None:
        """Take up those that the site has, once the group's timelines are."""
        group = self._group
        dropped = group.state.drops(group.name)
        lineage = {span.timeline for span in group.spans()}
        for row in self._rows():
            if row.timelines[-1] in dropped:
                remove_clone(self._group.state, row.name)
            elif {*row.timelines, row.cut.timeline} <= {*group.head.left, *lineage} and lineage.isdisjoint(
                row.timelines
            ):
                self._open[row.name] = Clone(group, row)
            else:
                error = "its timelines are not here, or are those of the group itself"
                subject = f"state.mdb clones {row.name}"
                group.emit("row.set_aside", group=group.name, object=subject, error=error)

    def __iter__(self) -> Iterator[Clone]:
        return iter(list(self._open.values()))

    def get(self, name: str) -> Clone | None:
        """The clone of that name, if it is one of this group's."""
        return self._open.get(name)

    def timelines(self) -> set[int]:
        """Every timeline of a clone."""
        return {timeline for clone in self._open.values() for timeline in clone.row.timelines}

    def create(self, row: CloneRow) -> Clone:
        """A clone at a cut that is held and readable here. Durable on return. The name must be free.
        Trimmed, NoSpace or OSError: there is none. `row.timelines` is empty."""
        group = self._group
        if len(self._open) >= CLONES_PER_GROUP_MAX:
            raise Refused(
                f"group {group.name} has {len(self._open)} clones, the most that it may",
                subject=group.name,
                next_step=f"`farshore clone list {group.name}`, and delete some",
            )
        if row.cut.timeline in self.timelines():
            raise Refused(
                f"{row.cut} is of a clone, and a clone cannot be cloned",
                subject=row.name,
                position=str(row.cut),
                next_step=f"clone a cut of {group.name} itself",
            )
        row = replace(row, cut=same_name(group.timelines, row.cut))
        lease = self._kept.leases.take("clone", row.cut)  # until its timeline keeps the cut by itself
        try:
            clone = Clone(group, row)
            clone.begin()
        finally:
            self._kept.leases.release(lease)
        self._open[row.name] = clone
        group.emit("clone.created", group=group.name, object=row.name, position=str(row.cut))
        return clone

    def stop(self, clone: Clone) -> None:
        """Take no more writes, for good."""
        clone.failed = "it is being deleted"
        clone.writer.close()

    def forget(self, clone: Clone) -> None:
        """Leave out a clone that was stopped and whose timelines are being dropped, as is written down."""
        remove_clone(self._group.state, clone.name)
        del self._open[clone.name]
        self._group.emit("clone.deleted", group=self._group.name, object=clone.name)

    def when_durable(self, callback: Callable[[], None]) -> None:
        """Call back once everything written to every clone by now is durable, but for those that failed."""
        waiting = [clone for clone in self if clone.writer.durable < clone.writer.written]
        left = len(waiting)
        if not left:
            callback()
            return

        def durable(_: OSError | None) -> None:
            nonlocal left
            left -= 1
            if not left:
                callback()

        for clone in waiting:
            clone.when_durable(durable)

    def close(self) -> None:
        """Stop timers."""
        for clone in self:
            clone.writer.close()
