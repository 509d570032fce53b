"""Files of a cut back into the volume that hosts use: the method's figure 5 whole.

The hosts are stopped and the export is closed; the pair is split; the secondary's volume is opened there and
its file system mounted, and the files of the copy are written into it; then the pair is resynchronised with
the secondary as its source, so that only the blocks that the files changed travel; the export is opened and
the hosts are started. What came is read back at the primary before that is called a success.

Until the resync nothing of the primary has changed: whatever fails before is undone by a resync with the
primary as its source. It runs where the secondary's exports can be reached and as root: the kernel writes
into the file system.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from console.commands.pair import wait_for
from console.files.opening import open_files
from console.files.walk import Finder, MissedInfo
from console.files.writing_back import Into, check_files, write_files
from console.host_commands import run_host_command, stop_host
from console.local_time import monotonic, pause
from console.mounts.mounting import require_root
from console.session import Session
from protocol.commands.base import Reply
from protocol.commands.cut import CutInfo
from protocol.commands.pair import Head, PairResync, PairShow, PairSplit
from protocol.commands.volume import VolumeList, VolumeOffline, VolumeOnline
from protocol.errors import Busy, WrongState

PAIR_TIMEOUT_S = 120.0
RESYNC_TIMEOUT_S = 3600.0
# How long hosts that were stopped may take to be gone at the site.
LEAVE_TIMEOUT_S = 10.0
LEAVE_POLL_S = 0.1


class IntoStep(Reply, frozen=True, kw_only=True):
    """What happens at which site, or at this machine."""

    where: str
    do: str


class IntoPlan(Reply, frozen=True, kw_only=True):
    """The steps, and what the group is before them."""

    group: str
    volume: str
    dry_run: bool
    head: Head
    peer: str
    steps: list[IntoStep]


class IntoReply(IntoPlan, frozen=True, kw_only=True):
    """What was done; `head` is that of the split, to which `undo` goes back."""

    cut: CutInfo
    files: int
    directories: int
    links: int
    bytes: int
    checked_files: int
    missed: list[MissedInfo]
    undo: str
    start_exit_code: int | None
    took_ms: float


class IntoVolume:
    """`here` is the site that writes the group, `there` the one that follows it."""

    def __init__(self, here: Session, there: Session, into: Into) -> None:
        self._here = here
        self._there = there
        self._into = into

    def plan(self) -> IntoPlan:
        """The steps, each with where it happens; nothing is changed. Raises WrongState."""
        into, group = self._into, self._into.group
        pair = self._here.call(PairShow(group=group))
        if (pair.role, pair.state) != ("primary", "paired"):
            raise WrongState(
                f"{group} is {pair.state} ({pair.code}) and {pair.role} here",
                subject=group,
                next_step=f"run it for the site that writes it, once `farshore pair show {group}` is paired",
            )
        here, there, host = self._here.site.name, pair.peer or "", "this machine"
        volumes = self._online()
        steps = [
            (host, into.stop or "(no --stop: the hosts of the group are stopped already)"),
            *((here, f"farshore volume offline {group}/{volume}") for volume in volumes),
            (here, f"farshore pair split {group}"),
            (there, f"farshore volume online {into.name}"),
            (
                "this machine",
                f"mount {into.name} of {there}; write {len(into.paths)} paths of {into.at}; unmount",
            ),
            (there, f"farshore volume offline {into.name}"),
            (here, f"farshore pair resync {group} --source remote"),
            *((here, f"farshore volume online {group}/{volume}") for volume in volumes),
            (host, into.start or "(no --start: the hosts are started by hand)"),
        ]
        return IntoPlan(
            group=group,
            volume=into.volume,
            dry_run=True,
            head=pair.head,
            peer=there,
            steps=[IntoStep(where=where, do=do) for where, do in steps],
        )

    def run(self) -> IntoReply:
        """The whole flow. Raises FarshoreError; what the primary holds is then what it held before."""
        into, began = self._into, monotonic()
        require_root()
        plan = self.plan()
        volumes = self._online()
        with open_files(self._there, into.group, into.volume, self._there.cut(into.at), into.ways) as files:
            finder = Finder(files.source)
            found = [finder.ancestors(path) or [finder.find(path)] for path in into.paths]
            if into.stop:
                stop_host(into.stop, into.name)
            with self._undone_if_it_fails(volumes):
                self._close(volumes)
                # What hosts wrote while they stopped is not to be lost by an undo.
                head = self._here.call(PairSplit(group=into.group), PAIR_TIMEOUT_S).head
                outcome = write_files(self._there, into, files, found)
            cut = files.cut
        with self._here.output.activity(f"{into.group}: taking in what was written at {plan.peer}"):
            self._here.call(PairResync(group=into.group, source="remote"), PAIR_TIMEOUT_S)
        wait_for(self._here, into.group, "paired", None, RESYNC_TIMEOUT_S)
        check_files(self._here, into, outcome)
        for volume in volumes:
            self._here.call(VolumeOnline(group=into.group, volume=volume))
        code = run_host_command(into.start) if into.start else None
        return IntoReply(
            group=plan.group,
            volume=plan.volume,
            dry_run=False,
            head=head,
            peer=plan.peer,
            steps=plan.steps,
            cut=cut,
            files=outcome.files,
            directories=outcome.directories,
            links=outcome.links,
            bytes=outcome.data_bytes,
            checked_files=len(outcome.digests),
            missed=[each.info for each in outcome.missed],
            undo=self._here.output.pasted(
                f"farshore restore volume {into.name} --at {head.timeline}:{head.position}"
                f" --confirm {into.name}"
            ),
            start_exit_code=code,
            took_ms=(monotonic() - began) * 1e3,
        )

    def _online(self) -> list[str]:
        """The group's volumes whose exports are open here: all of them go the way of the pair."""
        rows = self._here.call(VolumeList(group=self._into.group)).volumes
        return [row.volume for row in rows if row.online and not row.deleted]

    def _close(self, volumes: list[str]) -> None:
        """No host may write while the group's content is to come from elsewhere. Raises Busy."""
        deadline = monotonic() + (LEAVE_TIMEOUT_S if self._into.stop else 0.0)
        for volume in volumes:
            while True:
                try:
                    self._here.call(VolumeOffline(group=self._into.group, volume=volume))
                    break
                except Busy:
                    if monotonic() >= deadline:
                        raise
                    pause(LEAVE_POLL_S)

    @contextmanager
    def _undone_if_it_fails(self, volumes: list[str]) -> Iterator[None]:
        """Back to where the primary is what it was and the pair runs, exports open, hosts started."""
        into = self._into
        try:
            yield
        except BaseException:
            self._here.output.note(f"undoing: {into.name} stays as it was")
            with ExitStack() as steps:  # the last one pushed runs first, and all of them run
                if into.start:
                    steps.callback(run_host_command, into.start)
                for volume in volumes:
                    steps.callback(self._here.call, VolumeOnline(group=into.group, volume=volume))
                steps.callback(self._resync_from_here)
            raise

    def _resync_from_here(self) -> None:
        into = self._into
        if self._here.call(PairShow(group=into.group)).state == "paired":
            return
        self._here.call(PairResync(group=into.group, source="local"), PAIR_TIMEOUT_S)
        wait_for(self._here, into.group, "paired", None, RESYNC_TIMEOUT_S)
