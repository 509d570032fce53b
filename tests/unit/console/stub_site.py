"""A site that is only its control server: real sockets, canned replies, and a list of what was asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon.control import ControlServer
from protocol.commands import Command, command_name

Reply = dict[str, Any] | Callable[[Any], dict[str, Any]]

CUT = {
    "timeline": "8f3a000000000001",
    "position": 8192,
    "text": "8f3a000000000001:8192",
    "time": "2026-07-03T00:45:00Z",
}
VOLUME = {
    "group": "vm1",
    "volume": "root",
    "size_bytes": 10 << 30,
    "online": True,
    "offline_reason": "",
    "hosts": 1,
    "id": "8f3a000000000001:0",
    "created": "2026-07-01T00:00:00Z",
    "deleted": False,
}
BACKUP = {
    "id": "00000000000000ab",
    "label": "nightly",
    "group": "vm1",
    "volumes": ["root"],
    "cut": CUT,
    "time": "2026-07-03T00:45:00Z",
    "pinned": True,
    "consistency": "crash",
    "state": {"lon": "available", "par": "pending"},
}
GROUP = {
    "group": "vm1",
    "role": "primary",
    "state": "paired",
    "code": "PAIR",
    "mode": "async",
    "peer": "par",
    "direction": "lon→par",
    "head": {"timeline": "8f3a000000000001", "position": 97_926_000_000},
    "written": 97_926_000_000,
    "durable": 97_926_000_000,
    "checkpointed": 4096,
    "shipped": 97_926_000_000,
    "remote_written": 97_924_846_572,
    "remote_durable": 97_924_846_572,
    "lag_bytes": 1_153_434,
    "lag_s": 0.4,
    "applied_age_s": 0.3,
    "complete_until": "2026-07-03T01:00:00Z",
    "journal_bytes": 64 << 20,
    "volumes": 1,
    "reason": "",
    "last_backup": BACKUP,
}
PEER = {
    "peer": "par",
    "endpoint": "tcp://10.0.0.2:7001",
    "fingerprint": "aa:bb",
    "connected": True,
    "heard_s": 0.2,
    "groups": ["vm1"],
    "rate_bytes_s": 10 << 20,
    "compress": "zstd",
}
RESTORE = {
    "group": "vm1",
    "volumes": ["root"],
    "dry_run": False,
    "cut": CUT,
    "head": {**CUT, "position": 12_288, "text": "8f3a000000000001:12288"},
    "position": "8f3a000000000001:12288",
    "discarded_bytes": 4096,
    "discarded_s": 12.0,
    "hosts": [],
    "online": False,
    "undo": "farshore restore volume vm1/root --at 8f3a000000000001:12288 --confirm vm1/root",
    "checked_blocks": 1000,
    "took_ms": 12.5,
}
WAIT = {
    "reached": True,
    "state": "paired",
    "code": "PAIR",
    "position": "8f3a000000000001:8192",
    "time": None,
    "remote_durable": 8192,
    "lag_bytes": 0,
    "lag_s": 0.0,
}
TAKEOVER = {
    "group": "vm1",
    "done": True,
    "position": CUT,
    "nothing_lost": False,
    "none_lost_until": "2026-07-03T00:45:00Z",
    "known_lost_bytes": 4096,
    "age_s": 12.0,
    "statement": "nothing acknowledged up to 2026-07-03T00:45:00Z is lost; later writes may be",
    "peer": "par",
    "took_ms": 8.5,
}
BRANCH = {
    "timeline": "00000000000000cd",
    "from": CUT,
    "to": {**CUT, "timeline": "00000000000000cd", "position": 20_480, "text": "00000000000000cd:20480"},
    "bytes": 12_288,
    "frames": 3,
    "writer": "par",
    "began": "2026-07-03T00:46:00Z",
    "ended": "2026-07-03T00:47:00Z",
    "backups": [],
    "exports": ["vm1/root@00000000000000cd:20480"],
}

REPLIES: dict[str, Reply] = {
    "site.status": {
        "site": "lon",
        "site_id": "01",
        "version": "0.1.0",
        "time": "2026-07-03T01:00:00Z",
        "pid": 1,
        "control": "ipc:///x",
        "replication": None,
        "nbd": [],
        "peers": [PEER],
        "groups": [GROUP],
    },
    "site.token": {
        "site": "lon",
        "token": "FS1.abc",
        "site_id": "01",
        "replication": None,
        "public_key": "k",
        "fingerprint": "aa:bb",
    },
    "peer.add": {"peer": "par", "endpoint": None, "fingerprint": "aa:bb", "added": True},
    "peer.list": {"peers": [PEER]},
    "peer.set": PEER,
    "volume.create": VOLUME,
    "volume.list": {"volumes": [VOLUME]},
    "volume.show": {
        **VOLUME,
        "role": "primary",
        "head": CUT,
        "visibility": [{"timeline": "8f3a000000000001", "volume": VOLUME["id"], "from": 0, "to": None}],
        "connections": [{"client": "unix", "export": "vm1/root"}],
        "backups": [BACKUP],
    },
    "volume.online": VOLUME,
    "volume.offline": VOLUME,
    "volume.delete": VOLUME,
    "volume.uri": {
        "export": "vm1/root",
        "unix": "/srv/lon/nbd.sock",
        "tcp": None,
        "tls": False,
        "read_only": False,
        "size_bytes": 10 << 30,
        "cut": None,
    },
    "pair.create": GROUP,
    "pair.show": {
        **GROUP,
        "peer_connected": True,
        "sent_bytes": 5 << 20,
        "remote": {"timeline": "8f3a000000000001", "written": 1, "durable": 1, "head_time": None},
    },
    "pair.split": {**GROUP, "state": "split", "code": "PSUS"},
    "pair.resync": GROUP,
    "pair.set": {**GROUP, "mode": "sync"},
    "pair.delete": {"group": "vm1", "peer": "par"},
    "switchover": {**GROUP, "role": "secondary", "done": True, "position": CUT, "took_ms": 31.0},
    "takeover": TAKEOVER,
    "failback": {**GROUP, "fork": CUT, "tail_bytes": 12_288},
    "branch.list": {"branches": [BRANCH]},
    "branch.diff": {
        "branch": BRANCH,
        "frames": [
            {
                "position": "00000000000000cd:8192",
                "time": "2026-07-03T00:46:00Z",
                "bytes": 4200,
                "events": 2,
            }
        ],
        "volumes": [
            {"volume": "data", "differing_bytes": 0, "extents": []},
            {"volume": "root", "differing_bytes": 8192, "extents": [[4096, 8192]]},
        ],
    },
    "branch.drop": {"branch": BRANCH, "freed_bytes": 12_288},
    "backup.create": {**BACKUP, "took_ms": 4.2},
    "backup.list": {"backups": [BACKUP]},
    "backup.show": {**BACKUP, "exports": ["vm1/root@nightly"]},
    "restore.volume": RESTORE,
    "restore.group": RESTORE,
    "wait": WAIT,
    "events": {
        "events": [
            {
                "seq": 7,
                "time": "2026-07-03T00:45:00Z",
                "level": "info",
                "kind": "pair-connected",
                "group": "vm1",
                "object": "vm1",
                "position": "",
                "message": "[bold]not markup[/bold]",
            }
        ],
        "next": 7,
        "missed": False,
    },
    "journal.show": {
        "group": "vm1",
        "head": CUT,
        "timelines": [
            {
                "timeline": "8f3a000000000001",
                "parent": None,
                "fork": 0,
                "generation": 1,
                "writer": "lon",
                "end": 8192,
            }
        ],
        "segments": 1,
        "bytes": 64 << 20,
        "frames": [
            {
                "position": "8f3a000000000001:0",
                "bytes": 4200,
                "time": "2026-07-03T00:45:00Z",
                "events": 2,
                "kinds": {"Write": 2},
                "durable": 0,
                "digest": "00" * 16,
            }
        ],
        "next": None,
    },
    "verify": {
        "group": "vm1",
        "ok": True,
        "deep": False,
        "frames": 2,
        "bytes": 8192,
        "versions": 2,
        "damage": [],
        "took_s": 0.1,
    },
    "cut.resolve": {**CUT, "group": "vm1", "label": None, "backup_id": None, "complete_until": None},
}


class StubSite:
    """Answers from `replies` (by command name); `asked` holds the commands in order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.replies: dict[str, Reply] = dict(REPLIES)
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

    async def _answer(self, command: Command) -> dict[str, Any]:
        self.asked.append(command)
        reply = self.replies[command_name(command)]
        return reply(command) if callable(reply) else reply
