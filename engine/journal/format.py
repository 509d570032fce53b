"""Where a group's journal lies on disk.

    journal/TIMELINE/POSITION.seg   frames end to end from POSITION (16 hex digits each), then zeroes
    journal/spare.seg               preallocated, waiting to become the next segment
    journal/base-spare.seg          the same for a base that is being received (engine.history.bases)

A frame never spans two files: one that does not fit begins the next, whose name is its position. A segment is
preallocated (as `JournalWriter.segment_bytes` says) and truncated to its frames once something follows it. A
fork begins a new directory, so that one file holds frames of one timeline only.

Validity and recovery: `protocol.frames` and `engine.journal.recovery`.
"""

from __future__ import annotations

from protocol.positions import timeline_text

JOURNAL_DIRECTORY = "journal"
SPARE_PATH = "journal/spare.seg"
BASE_SPARE_PATH = "journal/base-spare.seg"
_SUFFIX = ".seg"
_NAME_CHARS = 16


def timeline_directory(timeline: int) -> str:
    """Directory of a timeline's segments."""
    return f"{JOURNAL_DIRECTORY}/{timeline_text(timeline)}"


def segment_path(timeline: int, start: int) -> str:
    """Path of the segment whose first frame is at `start`."""
    return f"{timeline_directory(timeline)}/{start:016x}{_SUFFIX}"


def timeline_from_name(name: str) -> int | None:
    """The timeline that a directory name stands for, or None."""
    return _hex(name)


def start_from_name(name: str) -> int | None:
    """The position that a segment's file name stands for, or None."""
    return _hex(name.removesuffix(_SUFFIX)) if name.endswith(_SUFFIX) else None


def _hex(text: str) -> int | None:
    if len(text) != _NAME_CHARS or not set(text) <= set("0123456789abcdef"):
        return None
    return int(text, 16)
