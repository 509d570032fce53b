"""What `--json` prints: every kind of line, and the types of its data.

The types are named as text and imported when they are asked for, so that no command imports those of the
others. What scripts get to know is made of this table: `farshore schema`, docs/json-api.md, and the snapshot
that holds every field (tests/golden/replies.py). tests/tidy/test_reply_kinds.py compares it with the calls.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import msgspec

from console.output import API_VERSION
from protocol.commands.base import Reply
from protocol.errors import NotFound

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/"
# Its line has `errors`, a list, in place of `data`.
ERROR = "error"

# With several types `data` is one of them.
KINDS: Mapping[str, tuple[str, ...]] = {
    "backup.create": ("protocol.commands.backup:BackupCreateReply", "console.freezing:FrozenBackup"),
    "backup.delete": ("protocol.commands.backup:BackupDeleteReply",),
    "backup.delete-many": ("protocol.commands.backup:BackupDeleteManyReply",),
    "backup.list": ("protocol.commands.backup:BackupListReply",),
    "backup.lock": ("protocol.commands.backup:BackupInfo",),
    "backup.pin": ("protocol.commands.backup:BackupInfo",),
    "backup.prune": ("protocol.commands.backup:BackupPruneReply",),
    "backup.show": ("protocol.commands.backup:BackupShowReply",),
    "backup.unpin": ("protocol.commands.backup:BackupInfo",),
    "bisect": ("console.commands.bisect:BisectReply",),
    "branch.diff": ("protocol.commands.branch:BranchDiffReply",),
    "branch.drop": ("protocol.commands.branch:BranchDropReply",),
    "branch.list": ("protocol.commands.branch:BranchListReply",),
    "check": ("console.checks:CheckReply",),
    "clone.create": ("protocol.commands.clone:CloneCreateReply",),
    "clone.delete": ("protocol.commands.clone:CloneInfo",),
    "clone.list": ("protocol.commands.clone:CloneListReply",),
    "demo": ("console.demo.report:Summary",),
    "drill.checks": ("console.commands.drill_due:ChecksReply",),
    "drill.due": ("console.commands.drill_due:DueReply",),
    "drill.key": ("protocol.commands.drill:DrillKeyReply",),
    "drill.list": ("protocol.commands.drill:DrillListReply",),
    "drill.plan": ("protocol.commands.drill:DrillPlanReply",),
    "drill.report": ("console.commands.drill_report:DrillReport",),
    "drill.report.signed": ("protocol.commands.drill:SignedReport",),
    "drill.run": ("protocol.commands.drill:DrillInfo",),
    "drill.show": ("protocol.commands.drill:DrillInfo",),
    "drill.verify": ("console.commands.drill_report:VerifiedReport",),
    ERROR: ("protocol.commands.job:ErrorInfo",),
    "event": ("protocol.commands.event:EventInfo",),
    "events": ("protocol.commands.event:EventsReply",),
    "failback": ("protocol.commands.role:FailbackReply",),
    "files.last": ("console.commands.file_last:LastReply",),
    "files.versions": ("console.commands.file_versions:VersionsReply",),
    "group.delete": ("protocol.commands.group:GroupSummary",),
    "group.list": ("protocol.commands.group:GroupListReply",),
    "group.rename": ("protocol.commands.group:GroupSummary",),
    "group.show": ("protocol.commands.group:GroupSummary",),
    "job": ("protocol.commands.job:JobInfo",),
    "job.list": ("protocol.commands.job:JobListReply",),
    "journal.replay": ("console.commands.replay:ReplayReply",),
    "journal.show": (
        "protocol.commands.journal:JournalShowReply",
        "protocol.commands.journal:OfflineJournalReply",
    ),
    "ls": ("console.commands.file:LsReply",),
    "mount": ("console.commands.mount:MountReply",),
    "mount.list": ("console.commands.mount:MountListReply",),
    "notify.list": ("protocol.commands.notify:NotifyListReply",),
    "notify.test": ("console.commands.notify:NotifyTests",),
    "operator.add": ("protocol.commands.operator:OperatorListReply",),
    "operator.key": ("console.commands.operator:OperatorKeyReply",),
    "operator.list": ("protocol.commands.operator:OperatorListReply",),
    "operator.remove": ("protocol.commands.operator:OperatorListReply",),
    "pair.create": ("protocol.commands.pair:PairInfo",),
    "pair.delete": ("protocol.commands.pair:PairDeleteReply",),
    "pair.resync": ("protocol.commands.pair:PairInfo",),
    "pair.set": ("protocol.commands.pair:PairInfo",),
    "pair.show": ("protocol.commands.pair:PairInfo",),
    "pair.split": ("protocol.commands.pair:PairInfo",),
    "peer.add": ("protocol.commands.peer:PeerAddReply",),
    "peer.list": ("protocol.commands.peer:PeerListReply",),
    "peer.remove": ("protocol.commands.peer:PeerRemoveReply",),
    "peer.rename": ("protocol.commands.peer:PeerInfo",),
    "peer.replace": ("protocol.commands.peer:PeerInfo",),
    "peer.rotate-key": ("protocol.commands.peer:PeerInfo",),
    "peer.set": ("protocol.commands.peer:PeerInfo",),
    "progress": (
        "console.mounts.probing:ProbeStep",
        "console.commands.file_last:LastStep",
        "console.commands.file_versions:VersionsStep",
        "console.images.report:ImageStep",
        "console.commands.role:SwitchoverStep",
        "console.commands.pair:WaitStep",
        "console.confirming:DetachedStep",
        "console.demo.report:DemoStep",
        "protocol.commands.job:JobInfo",
    ),
    "restore": ("console.commands.restore:Restored",),
    "restore.files": ("console.commands.restore_files:FilesReply", "console.files.into_volume:IntoReply"),
    "restore.files.plan": ("console.files.into_volume:IntoPlan",),
    "restore.plan": ("protocol.commands.restore:RestoreReply",),
    "schedule.list": ("protocol.commands.schedule:ScheduleListReply",),
    "schedule.next": ("protocol.commands.schedule:ScheduleNextReply",),
    "schedule.remove": ("protocol.commands.schedule:ScheduleInfo",),
    "schedule.set": ("protocol.commands.schedule:ScheduleInfo",),
    "schedule.show": ("protocol.commands.schedule:ScheduleInfo",),
    "schema": ("console.commands.schema:SchemaReply",),
    "schema.list": ("console.commands.schema:SchemaListReply",),
    "seed.list": ("protocol.commands.seed:SeedListReply",),
    "seed.remove": ("protocol.commands.seed:SeedInfo",),
    "site.accept": ("protocol.commands.site:SiteAcceptReply",),
    "site.adopt": ("protocol.commands.site:SiteAdoptReply",),
    "site.cert-init": ("protocol.commands.site_cert:SiteCertReply",),
    "site.cert-issue": ("console.commands.site_cert:CertificateFiles",),
    "site.cert-list": ("protocol.commands.site_cert:SiteCertListReply",),
    "site.cert-revoke": ("protocol.commands.site_cert:SiteCertRevokeReply",),
    "site.check": ("protocol.commands.site:SiteCheckReply",),
    "site.init": ("console.commands.site:SiteMade",),
    "site.list": ("protocol.commands.site:SiteListReply",),
    "site.rotate-key": ("protocol.commands.site:SiteRotateKeyReply",),
    "site.set": ("protocol.commands.site:SiteRow",),
    "site.token": ("protocol.commands.site:SiteTokenReply",),
    "site.use": ("protocol.commands.site:SiteRow",),
    "status": ("protocol.commands.site:SiteStatusReply",),
    "switchover": ("protocol.commands.role:SwitchoverReply",),
    "takeover": ("protocol.commands.role:TakeoverReply",),
    "takeover.plan": ("protocol.commands.role:TakeoverReply",),
    "timeline": ("protocol.commands.timeline:TimelineReply",),
    "umount": ("console.commands.mount:UmountReply",),
    "verify": ("protocol.commands.verify:VerifyReply", "protocol.commands.verify:VerifyResult"),
    "volume.access": ("protocol.commands.volume_access:VolumeAccessReply",),
    "volume.allow": ("protocol.commands.volume_access:VolumeAccessReply",),
    "volume.attach": ("console.commands.volume_attach:AttachReply",),
    "volume.attached": ("console.commands.volume_attach:AttachListReply",),
    "volume.create": ("protocol.commands.volume:VolumeInfo",),
    "volume.delete": ("protocol.commands.volume:VolumeInfo",),
    "volume.detach": ("console.commands.volume_attach:DetachReply",),
    "volume.disallow": ("protocol.commands.volume_access:VolumeAccessReply",),
    "volume.export": ("console.images.report:ImageInfo",),
    "volume.import": ("console.images.report:ImageInfo",),
    "volume.list": ("protocol.commands.volume:VolumeListReply",),
    "volume.mkfs": ("console.commands.volume_attach:MkfsReply",),
    "volume.offline": ("protocol.commands.volume:VolumeInfo",),
    "volume.online": ("protocol.commands.volume:VolumeInfo",),
    "volume.rename": ("protocol.commands.volume:VolumeInfo",),
    "volume.resize": ("protocol.commands.volume:VolumeResizeReply",),
    "volume.show": ("protocol.commands.volume:VolumeShowReply",),
    "volume.uri": ("console.commands.volume:UriShown",),
    "wait": ("protocol.commands.pair:WaitReply",),
}


def reply_types(kind: str) -> list[type[Reply]]:
    """The types that `data` of a kind may have. Raises NotFound, naming the nearest kind."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "`farshore schema` lists them"
        raise NotFound(f"no kind {kind!r}", subject=kind, next_step=hint)
    types = []
    for place in KINDS[kind]:
        module, name = place.split(":")
        types.append(getattr(import_module(module), name))
    return types


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a whole line of that kind. Raises NotFound."""
    references, definitions = schemas(reply_types(kind))
    reply = references[0] if len(references) == 1 else {"anyOf": references}
    held = {"errors": {"type": "array", "items": reply}} if kind == ERROR else {"data": reply}
    line = {"api": {"const": API_VERSION}, "kind": {"const": kind}, "site": {"type": "string"}, **held}
    return {
        "$schema": DIALECT,
        "title": kind,
        "type": "object",
        "properties": line,
        "required": list(line),
        "$defs": definitions,
    }


def schemas(types: Sequence[type]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """References to each of the types, and the definitions of all that they hold, by name."""
    references, definitions = msgspec.json.schema_components(types, ref_template=REFERENCE + "{name}")
    return list(references), {name: _as_printed(each) for name, each in sorted(definitions.items())}


def _as_printed(definition: dict[str, Any]) -> dict[str, Any]:
    """msgspec says what is read, where a field with a default may be left out. What is printed has it."""
    required = set(definition.get("required", ()))
    properties = {}
    for name, each in definition.get("properties", {}).items():
        properties[name] = {key: value for key, value in each.items() if key != "default"}
        if "default" in each:
            required.add(name)
    return {
        **definition,
        "description": inspect.cleandoc(definition.get("description", "")),
        "properties": properties,
        "required": [name for name in properties if name in required],
    }
