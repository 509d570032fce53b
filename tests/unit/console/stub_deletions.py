"""Backups that were deleted, as `stub_site` answers."""

from __future__ import annotations

from protocol.commands.backup import BackupDeleteManyReply, PruneRow

DELETED = BackupDeleteManyReply(
    group="vm1",
    dry_run=False,
    deleted=[PruneRow(id="00000000000000ab", label="nightly", time="2026-07-03T00:45:00Z", why=[])],
    unique_bytes=None,
)
