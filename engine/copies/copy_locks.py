"""What the copy table asks a site's retention lock (engine.retention.retention_lock), and the lock of a site
that has none.

Pure: no I/O.
"""

from __future__ import annotations

from typing import Protocol

from engine.copies.copy_order import Place


class CopyLock(Protocol):
    """What a site's retention lock says of its copies (engine.retention.retention_lock)."""

    def locked(self, copy_id: int) -> bool:
        """Whether a copy may not be given up now, whatever was said of it."""

    def gave_up(self, deletion: Place) -> bool:
        """Whether the deletion at that place has counted for long enough to give up its copy's cut."""

    @property
    def waits(self) -> bool:
        """Whether that takes a time at all."""

    @property
    def moment(self) -> tuple[object, ...]:
        """Another one as soon as any of these answers may be: with time, or with what the lock has seen."""


class NoLock:
    """Everything may be given up at once."""

    def locked(self, copy_id: int) -> bool:
        """See `CopyLock.locked`."""
        return False

    def gave_up(self, deletion: Place) -> bool:
        """See `CopyLock.gave_up`."""
        return True

    @property
    def waits(self) -> bool:
        """See `CopyLock.waits`."""
        return False

    @property
    def moment(self) -> tuple[object, ...]:
        """See `CopyLock.moment`."""
        return ()


NO_LOCK = NoLock()
