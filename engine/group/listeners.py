"""Who wants to know what happens to a group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.frames import Frame


@dataclass(slots=True)
class GroupListeners:
    """Called in order, on the group's loop; none may raise."""

    frame: list[Callable[[Frame], None]] = field(default_factory=list)
    durable: list[Callable[[], None]] = field(default_factory=list)
    view: list[Callable[[], None]] = field(default_factory=list)
    relief: list[Callable[[], None]] = field(default_factory=list)
