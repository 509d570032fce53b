"""What each control command does, one module a noun. `dispatch` is the whole table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from daemon.operations import (
    backups,
    branches,
    clones,
    copies,
    drills,
    inspect,
    jobs,
    pairs,
    restores,
    roles,
    schedules,
    sites,
    verifying,
    volumes,
)
from daemon.site import Site
from protocol import (
    clone_commands,
    commands,
    copy_commands,
    drill_commands,
    job_commands,
    role_commands,
)
from protocol.errors import FarshoreError, UsageError

Data = dict[str, Any]

_OPERATIONS: dict[type, Callable[..., Awaitable[Data]]] = {
    commands.SiteStatus: sites.status,
    commands.SiteToken: sites.token,
    commands.SiteAccept: sites.accept,
    commands.PeerAdd: sites.peer_add,
    commands.PeerList: sites.peer_list,
    commands.PeerSet: sites.peer_set,
    commands.Events: sites.events,
    commands.VolumeCreate: volumes.create,
    commands.VolumeList: volumes.list_volumes,
    commands.VolumeShow: volumes.show,
    commands.VolumeOnline: volumes.online,
    commands.VolumeOffline: volumes.offline,
    commands.VolumeDelete: volumes.delete,
    commands.VolumeUri: volumes.uri,
    commands.PairCreate: pairs.create,
    commands.PairShow: pairs.show,
    role_commands.PairSplit: pairs.split,
    role_commands.PairResync: pairs.resync,
    role_commands.PairSet: pairs.set_pair,
    role_commands.PairDelete: pairs.delete,
    role_commands.Switchover: roles.switchover,
    role_commands.Takeover: roles.takeover,
    role_commands.Failback: roles.failback,
    role_commands.BranchList: branches.list_branches,
    role_commands.BranchDiff: branches.diff,
    role_commands.BranchDrop: branches.drop,
    clone_commands.CloneCreate: clones.create,
    clone_commands.CloneList: clones.list_clones,
    clone_commands.CloneDelete: clones.delete,
    commands.WaitFor: pairs.wait,
    commands.BackupCreate: backups.create,
    commands.BackupList: backups.list_backups,
    commands.BackupShow: backups.show,
    copy_commands.BackupPin: copies.pin,
    copy_commands.BackupLock: copies.lock,
    copy_commands.BackupDelete: copies.delete,
    copy_commands.BackupPrune: copies.prune,
    copy_commands.ScheduleSet: schedules.set_schedule,
    copy_commands.ScheduleList: schedules.list_schedules,
    copy_commands.ScheduleRemove: schedules.remove,
    commands.RestoreVolume: restores.restore_volume,
    commands.RestoreGroup: restores.restore_group,
    drill_commands.DrillRecord: drills.record,
    drill_commands.DrillList: drills.list_drills,
    commands.CutResolve: inspect.cut_resolve,
    commands.JournalShow: inspect.journal_show,
    commands.Verify: verifying.verify,
    job_commands.VerifyStart: verifying.start,
    job_commands.JobList: jobs.list_jobs,
    job_commands.JobShow: jobs.show,
    job_commands.JobWatch: jobs.watch,
    job_commands.JobCancel: jobs.cancel,
}


async def dispatch(site: Site, command: commands.Command) -> Data:
    """Carry out a command; FarshoreError for the operator."""
    operation = _OPERATIONS.get(type(command))
    if operation is None:
        raise UsageError(f"this site does not know {commands.command_name(command)}")
    try:
        return await operation(site, command)
    except OSError as error:
        raise FarshoreError(
            f"{commands.command_name(command)}: {error.strerror or error}",
            subject=str(error.filename or getattr(command, "group", "")),
            next_step="check the disk of the data directory; `farshore events` says what happened",
        ) from error
