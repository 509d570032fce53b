"""How a person is shown that a backup was proven."""

from __future__ import annotations

from console.session import Session
from protocol.commands.backup import BackupInfo, BackupShowReply, ProvenInfo


def proven_fields(session: Session, backup: BackupInfo) -> list[tuple[str, str]]:
    """A line for each way in which it was looked at, newest first; of one that never was, that and what to
    do."""
    if not isinstance(backup, BackupShowReply):
        return []
    if not backup.proven:
        name = backup.label or backup.id
        return [("proven", f"never: `farshore drill run {backup.group} --at {name} --check-hook NAME`")]
    found: list[tuple[str, str]] = []
    for each in backup.proven:
        found.append(("proven" if each.ok else "NOT PROVEN", _how(session, each)))
        found.append(("  digest", each.digest))
    return found


def _how(session: Session, each: ProvenInfo) -> str:
    words = [f"{each.how} at {each.site}, {session.local(each.at)}"]
    words += [f"by {each.by}"] if each.by else []
    words += [f"check {each.check}"] if each.check else []
    words += [f"drill {each.drill}"] if each.drill else []
    return ", ".join(words)
