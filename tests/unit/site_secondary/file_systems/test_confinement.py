"""What a confined process can no longer do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]
# Everything is imported, and what says who we are is opened, before the doors close.
SCRIPT = """
import json, os, resource, socket, sys
from site_secondary.file_systems.confinement import confine

def refused(act):
    try:
        act()
    except OSError:
        return True
    return False

"x".encode("idna")
status = open("/proc/self/status")
confine()
lines = dict(line.split(":", 1) for line in status.read().splitlines())
print(json.dumps({
    "uid": lines["Uid"].split(), "groups": lines["Groups"].split(), "new_rights": lines["NoNewPrivs"].strip(),
    "root": refused(lambda: os.listdir("/etc")), "fork": refused(os.fork),
    "write": refused(lambda: os.close(os.open("/x", os.O_CREAT | os.O_WRONLY))),
    "kill": refused(lambda: os.kill(os.getppid(), 0)),
    "network": refused(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)),
    "memory": resource.getrlimit(resource.RLIMIT_AS)[1],
}))
"""


def test_confined() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(server.getsockname()[1])],
            capture_output=True, text=True, timeout=30, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["fork"]
    assert seen["new_rights"] == "1"
    assert 0 < seen["memory"] < 1 << 40
    if os.geteuid() == 0:
        assert seen["uid"] == ["65534"] * 4
        assert seen["groups"] == []
        assert seen["root"]
        assert seen["write"]
        assert seen["kill"]
        assert seen["network"]
