"""A site that is only its control server: real sockets, canned replies, and a list of what was asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Raw, convert
from msgspec.structs import asdict, replace

from daemon.control import ControlServer
from protocol.commands.backup import BackupCreateReply, BackupInfo, BackupListReply, BackupShowReply, Mirror
from protocol.commands.base import Command, Reply, command_name
from protocol.commands.branch import (
    BranchDiffReply,
    BranchDropReply,
    BranchFrame,
    BranchInfo,
    BranchListReply,
    VolumeDiff,
)
from protocol.commands.cut import CutInfo, CutResolveReply
from protocol.commands.drill import DrillPlanReply
from protocol.commands.event import EventInfo, EventsReply
from protocol.commands.group import GroupListReply, GroupSummary
from protocol.commands.journal import FrameInfo, JournalShowReply, TimelineInfo
from protocol.commands.pair import GroupInfo, GroupRow, Head, PairDeleteReply, PairInfo, Remote, WaitReply
from protocol.commands.peer import PeerAddReply, PeerInfo, PeerListReply, PeerRemoveReply
from protocol.commands.restore import RestoreReply
from protocol.commands.role import FailbackReply, SwitchoverReply, TakeoverReply
from protocol.commands.schedule import ScheduleListReply
from protocol.commands.seed import SeedInfo, SeedListReply
from protocol.commands.site import SiteRotateKeyReply, SiteStatusReply, SiteTokenReply
from protocol.commands.verify import VerifyReply
from protocol.commands.volume import (
    Connection,
    Interval,
    VolumeInfo,
    VolumeListReply,
    VolumeResizeReply,
    VolumeShowReply,
    VolumeUriReply,
)
from protocol.envelopes import encode_data
from tests.unit.console.stub_deletions import DELETED
from tests.unit.console.stub_schedules import SCHEDULE, SCHEDULE_NEXT

# A page after the first one has only some fields of the reply.
Answer = Reply | Callable[[Any], Reply | dict[str, Any]]

CUT = CutInfo(
    timeline="8f3a000000000001",
    position=8192,
    text="8f3a000000000001:8192",
    time="2026-07-03T00:45:00Z",
)
SEED = SeedInfo(group="vm1", volume="root", size_bytes=10 << 30)
VOLUME = VolumeInfo(
    group="vm1",
    volume="root",
    size_bytes=10 << 30,
    online=True,
    offline_reason="",
    hosts=1,
    id="8f3a000000000001:0",
    created="2026-07-01T00:00:00Z",
    deleted=False,
)
BACKUP = BackupInfo(
    id="00000000000000ab",
    label="nightly",
    group="vm1",
    volumes=["root"],
    cut=CUT,
    time="2026-07-03T00:45:00Z",
    pinned=True,
    locked_until=None,
    kind="mark",
    consistency="crash",
    state={"lon": "available", "par": "pending"},
    verified_at=None,
    damage=None,
    remote_mirror=Mirror(source="lon", to="par"),
    local_mirrors=[Mirror(source="vm1/root", to="vm1/root@nightly")],
    held_by=[],
)
GROUP = GroupInfo(
    group="vm1",
    role="primary",
    state="paired",
    code="PAIR",
    mode="async",
    fallen_back=False,
    peer="par",
    direction="lon→par",
    head=Head(timeline="8f3a000000000001", position=97_926_000_000),
    written=97_926_000_000,
    durable=97_926_000_000,
    checkpointed=4096,
    shipped=97_926_000_000,
    remote_written=97_924_846_572,
    remote_durable=97_924_846_572,
    lag_bytes=1_153_434,
    lag_s=0.4,
    resync_left_bytes=None,
    resync_eta_s=None,
    applied_age_s=0.3,
    complete_until="2026-07-03T01:00:00Z",
    journal_bytes=64 << 20,
    journal_pressure="normal",
    time_to_full_s=None,
    lock=None,
    volumes=1,
    reason="",
    fetching=False,
    last_backup=BACKUP,
    last_drill=None,
    damaged=0,
    oldest_check=None,
)
ROW = GroupRow(**asdict(GROUP))
DAMAGED = convert(
    {
        **dict.fromkeys(GroupInfo.__struct_fields__),
        "group": "vm1",
        "state": "damaged",
        "code": "PSUE",
        "fallen_back": False,
        "reason": "its journal begins nowhere",
        "fetching": False,
        "position": "8f3a000000000001:0",
    },
    GroupRow,
)
PAIR = PairInfo(
    **asdict(GROUP),
    peer_connected=True,
    remote=Remote(timeline="8f3a000000000001", written=1, durable=1, head_time=None),
    sent_bytes=5 << 20,
)
PEER = PeerInfo(
    peer="par",
    endpoint="tcp://10.0.0.2:7001",
    fingerprint="aa:bb",
    connected=True,
    heard_s=0.2,
    groups=["vm1"],
    rate_bytes_s=10 << 20,
    compress="zstd",
)
STATUS = SiteStatusReply(
    site="lon",
    site_id="01",
    version="0.1.0",
    time="2026-07-03T01:00:00Z",
    pid=1,
    control="ipc:///x",
    replication=None,
    nbd=[],
    peers=[PEER],
    groups=[ROW],
)
RESTORE = RestoreReply(
    group="vm1",
    volumes=["root"],
    untouched=[],
    dry_run=False,
    cut=CUT,
    head=replace(CUT, position=12_288, text="8f3a000000000001:12288"),
    position="8f3a000000000001:12288",
    discarded_bytes=4096,
    discarded_s=12.0,
    hosts=[],
    online=False,
    undo="farshore restore volume vm1/root --at 8f3a000000000001:12288 --confirm vm1/root",
    checked_blocks=1000,
    took_ms=12.5,
    way="revert",
    copied_bytes=0,
    job=None,
)
WAIT = WaitReply(
    reached=True,
    state="paired",
    code="PAIR",
    position="8f3a000000000001:8192",
    time=None,
    remote_durable=8192,
    lag_bytes=0,
    lag_s=0.0,
)
SWITCHOVER = SwitchoverReply(**asdict(replace(PAIR, role="secondary")), done=True, position=CUT, took_ms=31.0)
TAKEOVER = TakeoverReply(
    group="vm1",
    done=True,
    position=CUT,
    nothing_lost=False,
    none_lost_until="2026-07-03T00:45:00Z",
    known_lost_bytes=4096,
    age_s=12.0,
    statement="nothing acknowledged up to 2026-07-03T00:45:00Z is lost; later writes may be",
    peer="par",
    took_ms=8.5,
)
FAILBACK = FailbackReply(**asdict(PAIR), fork=CUT, tail_bytes=12_288)
BRANCH = BranchInfo(
    timeline="00000000000000cd",
    start=CUT,
    to=replace(CUT, timeline="00000000000000cd", position=20_480, text="00000000000000cd:20480"),
    bytes=12_288,
    frames=3,
    writer="par",
    began="2026-07-03T00:46:00Z",
    ended="2026-07-03T00:47:00Z",
    backups=[],
    exports=["vm1/root@00000000000000cd:20480"],
)
BRANCH_DIFF = BranchDiffReply(
    branch=BRANCH,
    frames=[BranchFrame(position="00000000000000cd:8192", time="2026-07-03T00:46:00Z", bytes=4200, events=2)],
    volumes=[
        VolumeDiff(volume="data", differing_bytes=0, extents=[]),
        VolumeDiff(volume="root", differing_bytes=8192, extents=[(4096, 8192)]),
    ],
)
VOLUME_SHOWN = VolumeShowReply(
    **asdict(VOLUME),
    role="primary",
    head=CUT,
    visibility=[Interval(timeline="8f3a000000000001", volume=VOLUME.id, start=0, to=None)],
    connections=[Connection(client="unix", export="vm1/root")],
    backups=[BACKUP],
)
VOLUME_URI = VolumeUriReply(
    export="vm1/root",
    unix="/srv/lon/nbd.sock",
    tcp=None,
    tls=False,
    read_only=False,
    size_bytes=10 << 30,
    cut=None,
)
EVENTS = EventsReply(
    events=[
        EventInfo(
            seq=7,
            time="2026-07-03T00:45:00Z",
            level="info",
            kind="pair-connected",
            group="vm1",
            object="vm1",
            position="",
            message="[bold]not markup[/bold]",
        )
    ],
    next=7,
    missed=False,
)
JOURNAL = JournalShowReply(
    group="vm1",
    head=CUT,
    timelines=[
        TimelineInfo(timeline="8f3a000000000001", parent=None, fork=0, generation=1, writer="lon", end=8192)
    ],
    segments=1,
    bytes=64 << 20,
    frames=[
        FrameInfo(
            position="8f3a000000000001:0",
            bytes=4200,
            time="2026-07-03T00:45:00Z",
            events=2,
            kinds={"Write": 2},
            durable=0,
            digest="00" * 16,
        )
    ],
    next=None,
)
VERIFIED = VerifyReply(
    group="vm1", ok=True, deep=False, frames=2, bytes=8192, versions=2, damage=[], took_s=0.1
)

SUMMARY = GroupSummary(
    group="vm1",
    group_id="00000000000000ab",
    role="primary",
    state="simplex",
    peer=None,
    created="2026-01-01T00:00:00Z",
    volumes=1,
    clones=[],
    backups=2,
    locked_until=None,
    journal_bytes=4096,
    hosts=[],
)
REPLIES: dict[str, Reply] = {
    "site.status": STATUS,
    "site.token": SiteTokenReply(
        site="lon", token="FS1.abc", site_id="01", replication=None, public_key="k", fingerprint="aa:bb"
    ),
    "peer.add": PeerAddReply(peer="par", endpoint=None, fingerprint="aa:bb", added=True),
    "drill.plans": DrillPlanReply(plans=[]),
    "schedule.list": ScheduleListReply(schedules=[SCHEDULE]),
    "schedule.set": SCHEDULE,
    "schedule.next": SCHEDULE_NEXT,
    "peer.list": PeerListReply(peers=[PEER]),
    "peer.set": PEER,
    "peer.replace": PEER,
    "group.list": GroupListReply(groups=[SUMMARY]),
    "group.show": SUMMARY,
    "group.rename": SUMMARY,
    "group.delete": SUMMARY,
    "peer.rotate-key": PEER,
    "site.rotate-key": SiteRotateKeyReply(token="FS1.abc", fingerprint="aa:bb", in_use=False),
    "peer.rename": PEER,
    "peer.remove": PeerRemoveReply(peer="par", fingerprint="aa:bb"),
    "volume.create": VOLUME,
    "volume.list": VolumeListReply(volumes=[VOLUME]),
    "volume.show": VOLUME_SHOWN,
    "volume.online": VOLUME,
    "volume.offline": VOLUME,
    "volume.rename": VOLUME,
    "volume.resize": VolumeResizeReply(
        **asdict(VOLUME),
        before_bytes=1 << 30,
        dry_run=False,
        position="00000000000000ff:4096",
        undo="farshore restore volume vm1/root --at 00000000000000ff:4000 --confirm vm1/root",
    ),
    "volume.delete": VOLUME,
    "volume.uri": VOLUME_URI,
    "seed.list": SeedListReply(seeds=[SEED]),
    "seed.remove": SEED,
    "pair.create": PAIR,
    "pair.show": PAIR,
    "pair.split": replace(PAIR, state="split", code="PSUS"),
    "pair.resync": PAIR,
    "pair.set": replace(PAIR, mode="sync"),
    "pair.delete": PairDeleteReply(group="vm1", peer="par"),
    "switchover": SWITCHOVER,
    "takeover": TAKEOVER,
    "failback": FAILBACK,
    "branch.list": BranchListReply(branches=[BRANCH]),
    "branch.diff": BRANCH_DIFF,
    "branch.drop": BranchDropReply(branch=BRANCH, done=True, freed_bytes=12_288),
    "backup.create": BackupCreateReply(**asdict(BACKUP), took_ms=4.2, freeze=None),
    "backup.list": BackupListReply(backups=[BACKUP]),
    "backup.delete-many": DELETED,
    "backup.show": BackupShowReply(**asdict(BACKUP), exports=["vm1/root@nightly"]),
    "restore.volume": RESTORE,
    "restore.group": RESTORE,
    "wait": WAIT,
    "events": EVENTS,
    "journal.show": JOURNAL,
    "verify": VERIFIED,
    "cut.resolve": CutResolveReply(
        **asdict(CUT), group="vm1", label=None, backup_id=None, complete_until=None
    ),
}


class StubSite:
    """Answers from `replies` (by command name); `asked` holds the commands in order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.replies: dict[str, Answer] = dict[str, Answer](REPLIES)
        self.asked: list[Any] = []
        self._ready = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="stub site")

    def __enter__(self) -> StubSite:
        self._thread.start()
        if not self._ready.wait(10):
            raise AssertionError("the stub site did not start")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop()
        self._thread.join(10)

    async def _serve(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(ended.set)
        server = ControlServer(loop, f"ipc://{self.directory}/control.sock", self._answer)
        server.start()
        self._ready.set()
        await ended.wait()
        await server.close()

    async def _answer(self, command: Command) -> Raw:
        self.asked.append(command)
        reply = self.replies[command_name(command)]
        return encode_data(reply(command) if callable(reply) else reply)
