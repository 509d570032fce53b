"""Where a group's head is: the timeline that goes on here, what its last frame says, and what was left.

It moves in four ways only: `put` to a place that a start, a base or an older move names, `moved` to another
timeline, `took` for each frame, and `own` or `others` once it is known whose run goes on. Pure: whoever moves
it makes that durable first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.frames import NO_DIGEST, FramePrefix
from protocol.positions import Cut


class NotContiguous(Exception):
    """A frame does not follow what is here; the sender must find out where to go on."""


@dataclass(slots=True)
class Head:
    """`timeline` is 0 while there is none; `digest` and `utc_ns` are those of its last frame. `left` has the
    timelines that are not the head, by the end of what is held."""

    timeline: int = 0
    digest: bytes = NO_DIGEST
    utc_ns: int = 0
    left: dict[int, int] = field(default_factory=dict)
    began: bool = False  # whether this run has its own timeline
    sealed: bool = True  # whether the head ends here at every site, as far as this one can know
    followed: int = 0  # the timeline of which another site's frames were stored last, in this run

    def __bool__(self) -> bool:
        return self.timeline != 0

    def put(self, timeline: int, digest: bytes, utc_ns: int) -> None:
        """It is past that frame, whatever came before; nothing there is this run's own."""
        self.timeline, self.digest, self.utc_ns = timeline, digest, utc_ns
        self.began = False

    def moved(self, left: Cut, timeline: int) -> None:
        """It is another timeline from now on; what was left ends at `left`."""
        if left.timeline:
            self.left[left.timeline] = left.position
        self.left.pop(timeline, None)
        self.timeline = timeline

    def apply(self, prefix: FramePrefix) -> None:
        """One more frame is in the journal."""
        self.digest, self.utc_ns = prefix.digest, prefix.utc_ns

    def own(self) -> None:
        """This run's own timeline goes on, which nothing else continues."""
        self.began = self.sealed = True

    def others(self) -> None:
        """Another site's frames go on: what it has past them is not known here."""
        self.began = self.sealed = False
