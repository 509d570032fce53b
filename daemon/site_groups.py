"""The groups of one site: opened at its start, made, set aside, stopped by a defect and closed.

A group that cannot be opened, or that a defect stops, takes no other with it. What it is opened with comes
from the site's parts; what it is wired to (pairs, doors, answers to peers) is the site's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from daemon import group_moves
from daemon.exports import SiteExports
from daemon.new_group import make_group
from daemon.open_group import GroupMaker, OpenedTogether, OpenGroup
from engine.group.clone_rows import clone_row
from engine.group.compartment import attempt, attempt_async
from engine.group.group import Group
from engine.group.open_clone import Clone
from engine.group.site_state import GroupRow, Role
from engine.history.branch_drop import BranchDrops, check_droppable
from protocol.errors import Busy, FarshoreError, Refused


class SiteGroups:
    """The groups of one site. `open` has the groups that are open, by name, `damaged` why others are not;
    `exports` serves those of `open`."""

    def __init__(
        self,
        open_groups: dict[str, Group],
        maker: GroupMaker,
        exports: SiteExports,
        check_room: Callable[[str, str], None],
    ) -> None:
        self.open = open_groups
        self.damaged: dict[str, FarshoreError] = {}
        self._made: dict[str, OpenGroup] = {}
        self._maker = maker
        self._exports = exports
        self._check_room = check_room
        self._moving: set[str] = set()  # names that groups on their way have, or are to have

    def open_all(self, rows: list[GroupRow]) -> None:
        """Open groups at a start; what keeps one of them closed is said. Nothing else runs meanwhile, so that
        their journals can be made durable last, all at once: before anyone reads or appends."""
        parts = self._maker.parts
        if rows:
            parts.disk.make_directory("groups")
        together = OpenedTogether(parts.settle({row.name: row.head for row in rows}))
        for row in rows:
            self.start(row.name, partial(self.open_group, row, together))
        work = [partial(attempt, "group.not_started", each) for _, each in together.later]
        failures = parts.all_at_once(work)
        for (name, _), failure in zip(together.later, failures, strict=True):
            if failure is not None:
                self._maker.on_defect(name, failure)

    def open_group(self, row: GroupRow, together: OpenedTogether | None = None) -> Group:
        """Open, and recover, a group. Corruption if what was promised is not there."""
        made = self._maker.open(row, together)
        self.open[row.name] = group = made.group
        self._made[row.name] = made
        self._maker.parts.witness.compare(group, row.group_id)
        for clone in list(group.clones):
            if clone.row.temporary:
                self.drop_clone(clone)
        return group

    def start(self, name: str, begin: Callable[[], object]) -> None:
        """Take a group up; one that cannot be is set aside, and the others start."""
        damage: list[FarshoreError] = []

        def begin_or_say() -> None:
            try:
                begin()
            except FarshoreError as found:  # damage that was looked for, and no defect
                damage.append(found)

        error = attempt("group.not_started", begin_or_say) or next(iter(damage), None)
        if error is None:
            return
        if name in self._made:
            self._maker.on_defect(name, error)
        elif isinstance(error, FarshoreError):
            self.set_aside(name, error)
        else:
            aside = FarshoreError(f"{name} cannot be opened: {error}", subject=name)
            aside.__cause__ = error
            self.set_aside(name, aside)

    def set_aside(self, name: str, error: FarshoreError) -> None:
        """Keep a group closed, and say why."""
        self.damaged[name] = error
        self._maker.parts.events.emit(
            "group.damaged", group=name, position=error.position, error=error.message
        )

    def stop(self, name: str, reason: str) -> bool:
        """A group serves nobody until the next start. False if it is being opened: who does so is told."""
        made = self._made.get(name)
        if made is not None:
            made.compartment.broken = True
            made.stop(reason)
        return made is not None

    def check_room(self, name: str, peer: str = "") -> None:
        """Refused or Busy if the group `name` may not be made, by a peer's call if one is named. Hosts find
        clones and groups by the same names: of two that share one, they would get the wrong bytes."""
        if self._is_clone(name):
            raise Refused(
                f"{name} is a clone here, with the volumes that its cut had: no group can have its name",
                subject=name,
                next_step="choose another name for one of them; `farshore clone list` shows clones",
            )
        if name in self._moving:
            raise Busy(
                f"a group is being renamed to or from {name}, or removed",
                subject=name,
                next_step="try again once that is done",
            )
        self._check_room(name, peer)

    def create(self, name: str, group_id: str, role: Role) -> Group:
        """A new, empty group. Refused if there is no room for it. What keeps it from being opened is raised,
        and nothing of it stays."""
        self.check_room(name)
        parts, state = self._maker.parts, self._maker.state
        group_moves.check_free(parts.disk, name)
        was_there = group_moves.is_there(parts.disk, name)
        row = GroupRow(name=name, group_id=group_id, role=role, head=0, created_utc_ns=parts.clock.utc_ns())
        try:
            group = make_group(row, state, self.open_group, self.set_aside)
        except Exception:
            if not (was_there or self.has(name)) and group_moves.is_there(parts.disk, name):
                attempt("group.not_taken_back", group_moves.move_directory, parts.disk, name, None)
            raise
        parts.events.emit("group.created", group=name, role=role.value)
        return group

    def has(self, name: str) -> bool:
        """Whether a group is here, damaged or not."""
        return name in self.open or name in self.damaged

    def is_taken(self, name: str) -> bool:
        """Whether a group or a clone has the name, or a group is on its way to it or from it."""
        return self.has(name) or name in self._moving or self._is_clone(name)

    def _is_clone(self, name: str) -> bool:
        """Also one of a group that cannot be opened, until it is mended."""
        if self._exports.clone(name) is not None:
            return True
        row = clone_row(self._maker.state, name)
        return row is not None and row.group in self.damaged

    def get(self, name: str) -> Group:
        """An open group; the damage that keeps it closed, or NotFound."""
        damage = self.damaged.get(name)
        if damage is not None:
            raise damage
        return self._exports.group(name)

    def drops(self, group: Group) -> BranchDrops:
        """Branches of a group that are being dropped."""
        return self._made[group.name].drops

    def drop_clone(self, clone: Clone) -> None:
        """Forget a clone; hosts go at once. Busy while one of its cuts is being read."""
        branch, group = clone.branch(), self.open[clone.history.name]
        check_droppable(group, branch)
        group.clones.stop(clone)
        self._exports.shut_clone(clone)
        self.drops(group).begin(branch)
        group.clones.forget(clone)

    async def move(self, group: Group, to: str | None) -> None:
        """Close a group and give it another name, under which it is opened; or remove it. OSError: the next
        start goes on with that; until then it stays closed, and its name taken."""
        parts, name = self._maker.parts, group.name
        group_moves.begin(parts.disk, self._maker.state.group(name), to)
        made = self._made.pop(name)
        del self.open[name]
        names = {name, *([] if to is None else [to])}
        self._moving |= names
        try:
            attempt("group.close_failed", self._exports.close_gate, group)
            await attempt_async("group.close_failed", made.close())
            self._exports.forget(group)
            group_moves.move_rows(parts.store, name, to)
            await asyncio.to_thread(group_moves.move_directory, parts.disk, name, to)
        except OSError as error:
            why = f"it was to be {'renamed' if to else 'deleted'}: {error}"
            self.set_aside(name, FarshoreError(why, subject=name, next_step="restart the site's daemon"))
            raise
        finally:
            self._moving -= names
        parts.witness.forget(name)
        if to is not None:
            self.start(to, partial(self.open_group, self._maker.state.group(to)))

    async def close(self) -> None:
        """Close every group, all at once, and leave little that the next start must replay."""
        for made in self._made.values():
            attempt("group.close_failed", self._exports.close_gate, made.group)
        closing = (attempt_async("group.close_failed", made.close()) for made in self._made.values())
        await asyncio.gather(*closing)
