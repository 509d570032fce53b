"""What a site sets for each of its groups."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.limits import CHECKPOINT_AFTER_BYTES, MEMTABLE_VERSIONS_HARD, MEMTABLE_VERSIONS_SOFT
from protocol.positions import POSITION_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """`journal_limit_bytes` bounds the journal; `reserve_bytes` of the file system stay free for
    checkpoints. Any cut within `window_s` and `window_bytes` of the end can be read; `throttle`: see
    `engine.retention.pressure`, `lock_window_s`: `engine.retention.retention_lock`."""

    journal_limit_bytes: int
    reserve_bytes: int
    memtable_soft: int = MEMTABLE_VERSIONS_SOFT
    memtable_hard: int = MEMTABLE_VERSIONS_HARD
    checkpoint_after_bytes: int = CHECKPOINT_AFTER_BYTES
    window_s: float = 86_400.0
    window_bytes: int = POSITION_MAX
    throttle: bool = False
    lock_window_s: float = 0.0
