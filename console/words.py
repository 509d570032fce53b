"""The words that a command line may begin with."""

from __future__ import annotations

# Each word that may come first, and where in console/commands/ it is: a noun with its own verbs, or a verb.
# A command loads what it needs itself and nothing else: loading all of them takes longer than most commands.
NOUNS = {
    "site": "site",
    "peer": "peer",
    "volume": "volume",
    "seed": "seed",
    "pair": "pair",
    "group": "group",
    "branch": "branch",
    "clone": "clone",
    "backup": "backup",
    "schedule": "schedule",
    "restore": "restore",
    "journal": "journal",
    "files": "file_versions",
    "job": "job",
    "operator": "operator",
    "drill": "drill",
    "notify": "notify",
}
VERBS = {
    "ls": "file.ls",
    "cat": "file.cat",
    "switchover": "role.switchover",
    "takeover": "role.takeover",
    "failback": "role.failback",
    "status": "status.status",
    "check": "check.check",
    "bisect": "bisect.bisect",
    "mount": "mount.mount",
    "umount": "mount.umount",
    "wait": "pair.wait",
    "events": "event.events",
    "timeline": "timeline.timeline",
    "verify": "verify.verify",
    "schema": "schema.show_schema",
    "demo": "site.demo",
    "complete": "complete.complete",
}
# What the shells ask, and nobody types.
HIDDEN = frozenset({"complete"})
# Verbs that are large enough for a file of their own beside their noun's.
VERBS_BESIDE = {
    "site": {
        "list": "site_names.list_sites",
        "use": "site_names.use_site",
        "set": "site_names.set_site",
        "check": "site_names.check_site",
        "cert": "site_cert.app",
    },
    "backup": {"delete": "backup_delete.delete", "prune": "backup_delete.prune"},
    "volume": {
        "create": "volume_create.create",
        "export": "volume_export.export_volume",
        "import": "volume_import.import_volume",
        "allow": "volume_access.allow",
        "disallow": "volume_access.disallow",
        "access": "volume_access.access",
        "attach": "volume_attach.attach",
        "detach": "volume_attach.detach",
        "mkfs": "volume_attach.mkfs",
    },
    "journal": {"replay": "replay.replay"},
    "files": {"last": "file_last.last"},
    "drill": {
        "report": "drill_report.report",
        "verify": "drill_report.verify",
        "key": "drill_report.key",
        "checks": "drill_due.checks",
        "due": "drill_due.due",
    },
    "restore": {"files": "restore_files.restore_files"},
}
