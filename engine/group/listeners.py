"""Who wants to know what happens to a group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.frames import Frame
from protocol.positions import Cut

Emit = Callable[..., None]  # an event for operators: its name, then fields by keyword


@dataclass(slots=True)
class GroupListeners:
    """Called in order, on the group's loop; none may raise."""

    frame: list[Callable[[Frame], None]] = field(default_factory=list)
    durable: list[Callable[[], None]] = field(default_factory=list)
    view: list[Callable[[], None]] = field(default_factory=list)
    relief: list[Callable[[], None]] = field(default_factory=list)
    # The head left a timeline at a cut, for one that is held in common up to a position.
    head: list[Callable[[Cut, int], None]] = field(default_factory=list)
    # A timeline that is not on the head's lineage goes on to a cut, or will not be durable to its end.
    branch_grew: list[Callable[[Cut], None]] = field(default_factory=list)
    branch_failed: list[Callable[[int], None]] = field(default_factory=list)
    # A checkpoint is done.
    indexed: list[Callable[[], None]] = field(default_factory=list)
    # A host's read failed.
    read_failed: list[Callable[[Exception], None]] = field(default_factory=list)
    # The journal has no room, and why; or has it again (empty).
    space: list[Callable[[str], None]] = field(default_factory=list)
