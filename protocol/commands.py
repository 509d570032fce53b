"""Control commands: what the console asks of a site's daemon (`envelopes.py` has what they travel in).

One frozen Struct a command, tagged with its name; unknown fields, unknown names and values out of bounds are
refused while decoding, so that whoever executes a command may trust it. Replies carry a plain dict; each
command's docstring gives its shape. In replies ids and timelines are hex strings, times RFC 3339 in UTC
(`cut_text.time_text`), sizes bytes, spans seconds; an unknown figure is null.

CUT in a shape is {"timeline": hex16, "position": int, "text": "TIMELINE:POSITION", "time": str|null}.
BACKUP is {"id": hex16, "label": str|null, "group", "volumes": [str], "cut": CUT, "time", "pinned": bool,
"locked_until": str|null (at this site, at the earliest), "kind": "mark"|"retroactive",
"consistency": "crash"|"frozen", "state": {SITE: "pending"|"available"|
"verified"|"damaged"|"expired"; of the peer what this site knows}, "verified_at": str|null, "damage":
str|null (both of this site), "remote_mirror": {"from": SITE, "to": SITE}|null, "local_mirrors":
[{"from": "G/V", "to": "G/V@BACKUP"}], "held_by": [str] (who else needs its cut: leases and restores)}.
Replies to a `PagedCommand` that is asked for pages also have "more" (`protocol.pages`).
VOLUME is {"group", "volume", "size_bytes", "online": bool, "hosts": int, "id": "TIMELINE:POSITION",
"created": str|null, "deleted": bool}.
Sans-I/O; no clock.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from protocol.bounds import LockSeconds
from protocol.clone_commands import CloneCreate, CloneDelete, CloneList
from protocol.command_base import (
    TOKEN_CHARS_MAX,
    BaseCommand,
    Compress,
    Confirm,
    Label,
    Name,
    PairMode,
    Rows,
    SizeBytes,
    WaitSeconds,
    check_name,
)
from protocol.copy_commands import (
    BackupDelete,
    BackupLock,
    BackupPin,
    BackupPrune,
    ScheduleList,
    ScheduleRemove,
    ScheduleSet,
)
from protocol.cut_text import CutPosition, NamedCut
from protocol.drill_commands import DrillList, DrillRecord
from protocol.errors import Unsafe, UsageError
from protocol.job_commands import JobCancel, JobList, JobShow, JobWatch, VerifyStart
from protocol.limits import NAME_CHARS_MAX, RATE_BYTES_S_MAX
from protocol.pages import PagedCommand
from protocol.role_commands import (
    BranchDiff,
    BranchDrop,
    BranchList,
    Failback,
    PairDelete,
    PairResync,
    PairSet,
    PairSplit,
    Switchover,
    Takeover,
)


class SiteStatus(PagedCommand, frozen=True, tag="site.status"):
    """{"site", "site_id": hex, "version", "time", "pid": int, "control": str, "replication": str|null,
    "nbd": [str], "peers": [PEER of peer.list], "groups": [{
      "group", "role": "primary"|"secondary"|"detached", "state": "simplex"|"copying"|"paired"|"split"|
      "suspended by error"|"taken over"|"diverged"|…, "code": "SMPL"|"COPY"|"PAIR"|"PSUS"|"SSUS"|"PSUE"|…,
      "mode": "async"|"sync"|"sync-strict"|null, "fallen_back": bool (the mode is not in force: the peer may
      lack what hosts were told is written), "peer": str|null, "direction": "lon→par"|null,
      "head": {"timeline", "position"}, "written": int, "durable": int, "checkpointed": int,
      "shipped": int|null, "remote_written": int|null, "remote_durable": int|null,
      "lag_bytes": int|null, "lag_s": float|null, "applied_age_s": float|null, "complete_until": str|null,
      "resync_left_bytes": int|null, "resync_eta_s": float|null (while copying),
      "journal_bytes": int, "journal_pressure": "normal"|"warning"|"throttle"|"detach"|"full",
      "time_to_full_s": float|null (of the journal, from "warning" on),
      "lock": null|{"window_s": float, "from": CUT|null (from there on every moment is locked; null: from the
      beginning), "backups": int (locked), "until": str|null (of the last of these)},
      "volumes": int, "reason": str, "fetching": bool (takes the peer's history in),
      "last_backup": BACKUP|null, "last_drill": DRILL of `drill_commands`, less its steps, |null,
      "damaged": int (places known), "oldest_check": str|null (all of it was compared since, by
      `verify --deep`)}]}"""


class SiteToken(BaseCommand, frozen=True, tag="site.token"):
    """{"site", "token": str, "site_id": hex, "replication": str|null, "public_key": Z85,
    "fingerprint": str}"""


class SiteAccept(BaseCommand, frozen=True, tag="site.accept"):
    """A group is less here than it once was, or missing: go on with what is here, and give the rest up.
    `confirm` is `G`. {"group", "lost": CUT (what was durable here once), "head": CUT|null (null: the group
    is missing)}"""

    group: Name
    confirm: Confirm = ""


class PeerAdd(BaseCommand, frozen=True, tag="peer.add"):
    """Trust a peer by its token. {"peer", "endpoint": str|null, "fingerprint": str, "added": bool}"""

    token: Annotated[str, Meta(min_length=1, max_length=TOKEN_CHARS_MAX)]


class PeerList(BaseCommand, frozen=True, tag="peer.list"):
    """{"peers": [{"peer", "endpoint": str|null, "fingerprint": str, "connected": bool,
    "heard_s": float|null (age of the last message), "groups": [str], "rate_bytes_s": int (0: unlimited),
    "compress": "none"|"zstd"}]}"""


class PeerSet(BaseCommand, frozen=True, tag="peer.set"):
    """How to send to a peer; null leaves as it is, a rate of 0 is none. PEER of peer.list: {…}"""

    peer: Name
    rate_bytes_s: Annotated[int, Meta(ge=0, le=RATE_BYTES_S_MAX)] | None = None
    compress: Compress | None = None


class VolumeCreate(BaseCommand, frozen=True, tag="volume.create"):
    """Makes the group with its first volume. VOLUME"""

    group: Name
    volume: Name
    size_bytes: SizeBytes


class VolumeList(PagedCommand, frozen=True, tag="volume.list"):
    """All groups, or one. {"volumes": [VOLUME]}"""

    group: Name | None = None


class VolumeShow(PagedCommand, frozen=True, tag="volume.show"):
    """VOLUME and {"role", "head": CUT, "visibility": [{"timeline", "volume", "from": int, "to": int|null}],
    "connections": [{"client": str, "export": str}], "backups": [BACKUP]}; with `history` also {"history": {
    "oldest": CUT (from there on any moment can be read here), "complete_until": str|null, "window_s": float,
    "gaps": [{"from": CUT|null, "to": CUT}] (what never came to this site), "older": [BACKUP]}}"""

    group: Name
    volume: Name
    history: bool = False


class VolumeOnline(BaseCommand, frozen=True, tag="volume.online"):
    """Open the export to hosts (after a revert, an adoption, `offline`). VOLUME"""

    group: Name
    volume: Name


class VolumeOffline(BaseCommand, frozen=True, tag="volume.offline"):
    """Close the export; `force` also while hosts are connected, who then get errors. VOLUME"""

    group: Name
    volume: Name
    force: bool = False


class VolumeDelete(BaseCommand, frozen=True, tag="volume.delete"):
    """Journal its deletion; history stays readable at earlier cuts. `confirm` is `G/V`. VOLUME"""

    group: Name
    volume: Name
    confirm: Confirm = ""


class VolumeUri(BaseCommand, frozen=True, tag="volume.uri"):
    """Where a host finds the export; `sound`: refused as unsafe if known damage would be read at the cut.
    {"export": "G/V" or "G/V@CUT" (a fixed form; `latest` and times become positions), "unix":
    path|null, "tcp": "HOST:PORT"|null, "tls": bool, "read_only": bool, "size_bytes", "cut": CUT|null}"""

    group: Name
    volume: Name
    cut: NamedCut | None = None
    sound: bool = False


class PairCreate(BaseCommand, frozen=True, tag="pair.create"):
    """Attach a group to a peer. PAIR of pair.show"""

    group: Name
    peer: Name
    mode: PairMode = "async"


class PairShow(BaseCommand, frozen=True, tag="pair.show"):
    """One group's row of site.status, and {"peer_connected": bool, "remote": {"timeline", "written": int,
    "durable": int, "head_time": str|null}|null, "sent_bytes": int|null (frames sent, of journal and bases,
    since this site began to ship the group: its start, the pair's creation or a role move; null where it
    does not)}"""

    group: Name


class BackupCreate(BaseCommand, frozen=True, tag="backup.create"):
    """Fix a cut of the group (`volume` null) or of one volume; without `cut`, by a mark in the journal.
    Answers when it is available at each attached site. `freeze`: a hook of the site that holds the hosts
    still meanwhile. `frozen`: the caller holds them still; answers at once, so that they can go on. `lock_s`:
    nobody can delete it for so many seconds.
    BACKUP and {"took_ms": float, "freeze": {"hook": str, "freeze_ms": float|null, "frozen_ms": float|null,
    "failure": str (why it is only crash-consistent), "stuck": str (why the thaw failed)}|null}"""

    group: Name
    volume: Name | None = None
    label: Label | None = None
    cut: NamedCut | None = None
    pin: bool = False
    freeze: Name | None = None
    frozen: bool = False
    lock_s: LockSeconds | UnsetType = UNSET  # then left out on the wire: older daemons know none


class BackupList(PagedCommand, frozen=True, tag="backup.list"):
    """Newest first; all groups, or one. {"backups": [BACKUP]}"""

    group: Name | None = None
    volume: Name | None = None


class BackupShow(BaseCommand, frozen=True, tag="backup.show"):
    """`cut` is a label or an id. BACKUP and {"exports": ["G/V@LABEL"]}; with `space` also {"space":
    {"bytes": int (what its volumes hold), "unique_bytes": int (what comes free at this site once it is
    deleted), "shared_bytes": int (the rest, which others need too)}}"""

    group: Name
    cut: NamedCut
    space: bool = False


class RestoreVolume(BaseCommand, frozen=True, tag="restore.volume"):
    """Turn a volume back to a cut. `force`: although hosts are connected; `start`: open the export again;
    `confirm` is `G/V`, not needed with `dry_run`.
    RESTORE: {"group", "volumes": [str], "dry_run": bool, "cut": CUT, "head": CUT (the state it discards; its
    `text` is the way back), "position": "TIMELINE:POSITION"|null (the revert), "discarded_bytes": int|null,
    "discarded_s": float|null, "hosts": [{"volume", "client"}], "online": bool, "undo": str (a command line),
    "checked_blocks": int, "took_ms": float|null, "way": "revert"|"write"|"fetch" (one event; blocks from this
    site's history; blocks from the peer's), "copied_bytes": int (written; with `dry_run`: at most),
    "job": int|null (the full compare, which goes on; none where the cut is the peer's alone)}; where blocks
    are written the answer comes at once, with "restoring": JOB, whose result are those fields that differ."""

    group: Name
    volume: Name
    cut: NamedCut
    dry_run: bool = False
    force: bool = False
    start: bool = False
    confirm: Confirm = ""


class RestoreGroup(BaseCommand, frozen=True, tag="restore.group"):
    """Turn every volume of a group back to one cut, in one frame; `confirm` is `G`. RESTORE"""

    group: Name
    cut: NamedCut
    dry_run: bool = False
    force: bool = False
    start: bool = False
    confirm: Confirm = ""


class WaitFor(BaseCommand, frozen=True, tag="wait"):
    """Answered when the group has the state, when `position` is durable at every attached site (with neither:
    when all written at the time of asking is), or after `timeout_s` with `reached` false; the client asks
    again. {"reached": bool, "state", "code", "position": "TIMELINE:POSITION" (the awaited; for a state, the
    head), "time": str|null, "remote_durable": int|null, "lag_bytes": int|null, "lag_s": float|null}"""

    group: Name
    state: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] | None = None
    position: CutPosition | None = None
    timeout_s: WaitSeconds = 1.0


class Events(PagedCommand, frozen=True, tag="events"):
    """The site's events with a number above `since`, oldest first, the newest `limit` of them when `since` is
    null. With none yet, waits `wait_s` for the first. {"events": [{"seq": int, "time",
    "level": "info"|"warning"|"error", "kind": word, "group": str|null, "object": str, "position": str,
    "message": str}], "next": int (`since` of the next call), "missed": bool (older ones were dropped)}"""

    since: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None = None
    limit: Rows = 100
    wait_s: WaitSeconds = 0.0


class JournalShow(PagedCommand, frozen=True, tag="journal.show"):
    """The newest `limit` frames, oldest first; with `since`, the first `limit` from there.
    {"group", "head": CUT, "timelines": [{"timeline", "parent": hex|null, "fork": int, "generation": int,
    "writer": str, "end": int}], "segments": int, "bytes": int, "frames": [{"position": "TIMELINE:POSITION",
    "bytes": int, "time", "events": int, "kinds": {word: int}, "durable": int, "digest": hex,
    "unread": str, only if it is not understood: why}], "next": "TIMELINE:POSITION"|null}"""

    group: Name
    since: CutPosition | None = None
    limit: Rows = 50


class Verify(BaseCommand, frozen=True, tag="verify"):
    """Check the journal's chain and that what the index names is there; `verify.start` also compares every
    byte. With any damage `ok` is false and the CLI ends 24. {"group", "ok": bool, "deep": bool, "frames":
    int, "bytes": int, "versions": int, "damage": [DAMAGE of verify.start], "took_s": float}"""

    group: Name


class CutResolve(BaseCommand, frozen=True, tag="cut.resolve"):
    """What a name of a cut stands for at this site now. CUT and {"group", "label": str|null,
    "backup_id": hex16|null, "complete_until": str|null}"""

    group: Name
    cut: NamedCut


Command = (
    SiteStatus | SiteToken | SiteAccept | PeerAdd | PeerList | PeerSet
    | VolumeCreate | VolumeList | VolumeShow | VolumeOnline | VolumeOffline | VolumeDelete | VolumeUri
    | PairCreate | PairShow | PairSplit | PairResync | PairSet | PairDelete
    | Switchover | Takeover | Failback | BranchList | BranchDiff | BranchDrop
    | BackupCreate | BackupList | BackupShow | BackupPin | BackupLock | BackupDelete | BackupPrune
    | ScheduleSet | ScheduleList | ScheduleRemove
    | RestoreVolume | RestoreGroup
    | CloneCreate | CloneList | CloneDelete | DrillRecord | DrillList
    | WaitFor | Events | JournalShow | Verify | CutResolve
    | JobList | JobShow | JobWatch | JobCancel | VerifyStart
)  # fmt: skip

# Commands that change nothing: safe to send twice.
READ_ONLY = (
    SiteStatus, SiteToken, PeerList, VolumeList, VolumeShow, VolumeUri, PairShow, BackupList, BackupShow,
    WaitFor, Events, JournalShow, Verify, CutResolve, BranchList, BranchDiff, CloneList,
    JobList, JobShow, JobWatch, ScheduleList, DrillList,
)  # fmt: skip


def command_name(command: Command) -> str:
    """The name of a command as in its tag: `volume.create`."""
    return str(command.__struct_config__.tag)


def parse_volume_name(text: str) -> tuple[str, str]:
    """Group and volume of `G/V`. Raises UsageError."""
    group, slash, volume = text.partition("/")
    if not slash:
        raise UsageError(f"{text!r} names no volume", subject=text, next_step=f"write {text}/VOLUME")
    return check_name(group, "group"), check_name(volume, "volume")


def check_confirm(confirm: str, name: str, *, dry_run: bool = True, look: str = "--dry-run") -> None:
    """Raises Unsafe unless a destructive command was confirmed with the name of what it changes.
    `dry_run`: whether the command has such a form to look with first; `look`: the option that asks for it."""
    if confirm != name:
        said = f"confirmed {confirm!r}, not {name!r}" if confirm else "changes what hosts see"
        hint = f", or look with {look}" if dry_run else ""
        raise Unsafe(f"{name}: {said}", subject=name, next_step=f"add --confirm {name}{hint}")
