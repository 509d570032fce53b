"""What a confined process can no longer do, started by root and by an ordinary user (C14)."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console.file_systems.landlock import ruleset
from console.file_systems.syscall_filter import MACHINES, NEEDED, assemble
from tests.support.sites import short_directory

ROOT = Path(__file__).resolve().parents[4]
STRANGER = 64321
# Calls that Landlock and namespaces take; `prctl` itself, for a kernel without filters.
WITHOUT_LANDLOCK = {"x86_64": (444, 445, 446), "aarch64": (444, 445, 446)}
PRCTL = {"x86_64": 157, "aarch64": 167}
UNSHARE = {"x86_64": 272, "aarch64": 97}

# Everything is imported, and what says who we are is opened, before the doors close.
SCRIPT = """
import ctypes, json, mmap, os, resource, signal, socket, struct, sys
from console.file_systems import syscall_filter
from console.file_systems.confinement import confine

place, port, denied, user = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)

def refused(act):
    try:
        act()
    except OSError:
        return True
    return False

def connect(kind, where):
    with socket.socket(kind) as made:
        made.connect(where)

def executable():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)

def raw(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

if denied:
    # A kernel that lacks some calls: an older filter answers them as such a kernel would.
    libc.prctl(38, 1, 0, 0, 0)
    op = syscall_filter._INSTRUCTION.pack
    body = b"".join(op(0x15, 0, 1, each) + op(6, 0, 0, 0x00050000 | 38) for each in denied)
    syscall_filter.install(op(0x20, 0, 0, 0) + body + op(6, 0, 0, 0x7FFF0000))

inside, outside = socket.socketpair()
status = open("/proc/self/status")
secret = os.path.join(place, "secret")
control = place + "/control.sock"
if user:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
before = [refused(lambda: open(secret).close()), refused(lambda: connect(socket.AF_UNIX, control))]
try:
    missing = confine()
except OSError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit(0)
lines = dict(line.split(":", 1) for line in status.read().splitlines())
inside.sendall(b"x")
print(json.dumps({
    "before": before, "missing": missing, "talks": outside.recv(1) == b"x",
    "uid": lines["Uid"].split(), "groups": lines["Groups"].split(), "new_rights": lines["NoNewPrivs"].strip(),
    "filtered": lines["Seccomp"].strip(), "memory": resource.getrlimit(resource.RLIMIT_AS)[1],
    "effective": int(lines["CapEff"], 16),
    "refused": {
        "list": refused(lambda: os.listdir("/etc")),
        "read": refused(lambda: open(secret).close()),
        "write": refused(lambda: os.close(os.open("/x", os.O_CREAT | os.O_WRONLY))),
        "write here": refused(lambda: os.close(os.open(place + "/x", os.O_CREAT | os.O_WRONLY))),
        "unlink": refused(lambda: os.unlink(secret)),
        "stat": refused(lambda: os.stat(secret)),
        "fork": refused(os.fork),
        "run": refused(lambda: os.execv("/bin/true", ["true"])),
        "kill": refused(lambda: os.kill(os.getppid(), 0)),
        "tcp": refused(lambda: connect(socket.AF_INET, ("127.0.0.1", port))),
        "unix": refused(lambda: connect(socket.AF_UNIX, control)),
        "datagram": refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "to another": refused(lambda: inside.sendto(b"x", place + "/control.sock")),
        "pass": refused(lambda: socket.send_fds(inside, [b"x"], [status.fileno()])),
        "code": refused(executable),
        "namespace": refused(lambda: raw(%(unshare)d, 0x10000000)),
        "another's limits": refused(lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)),
    },
}))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a file and a listening socket that a stranger may use."""
    directory = short_directory()
    directory.chmod(0o777)
    (directory / "secret").write_text("secret")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "control.sock"))
        (directory / "control.sock").chmod(0o666)
        server.listen()
        yield directory
    for each in directory.iterdir():
        each.unlink()
    directory.rmdir()


def confined(place: Path, *, user: int, denied: tuple[int, ...] = ()) -> dict[str, Any]:
    """What a process found when it was confined; as `user` if root runs this. `denied`: calls that its
    kernel is not to have."""
    script = SCRIPT % {"unshare": UNSHARE[platform.machine()]}
    user = user if os.geteuid() == 0 else 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = [sys.executable, "-P", "-c", script, str(place), str(port), json.dumps(denied), str(user)]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=30, check=False, cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def check(seen: dict[str, Any]) -> None:
    assert seen["before"] == [False, False]
    assert seen["talks"]
    assert len(seen["refused"]) == 17
    assert [what for what, refused in seen["refused"].items() if not refused] == []
    assert seen["new_rights"] == "1"
    assert seen["filtered"] == "2"
    assert seen["effective"] == 0
    assert 0 < seen["memory"] < 1 << 40


def test_c14_an_ordinary_users(place: Path) -> None:
    seen = confined(place, user=STRANGER)
    check(seen)
    assert seen["missing"] == ""


def test_c14_roots(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("root only")
    seen = confined(place, user=0)
    check(seen)
    assert seen["missing"] == ""
    assert seen["uid"] == ["65534"] * 4
    assert seen["groups"] == []


def test_c14_without_landlock_there_is_a_namespace(place: Path) -> None:
    seen = confined(place, user=STRANGER, denied=WITHOUT_LANDLOCK[platform.machine()])
    check(seen)
    assert seen["missing"] == ""


def test_c14_without_both_it_is_said(place: Path) -> None:
    machine = platform.machine()
    seen = confined(place, user=STRANGER, denied=(*WITHOUT_LANDLOCK[machine], UNSHARE[machine]))
    check(seen)
    assert "no Landlock" in seen["missing"]


def test_c14_without_a_filter_nothing_is_read(place: Path) -> None:
    """A kernel with no prctl has neither a filter nor a way to give up rights."""
    assert "refused" in confined(place, user=STRANGER, denied=(PRCTL[platform.machine()],))


def test_every_call_that_is_needed_has_a_number() -> None:
    for name, machine in MACHINES.items():
        program = assemble(NEEDED, machine)
        assert len(program) % 8 == 0, name
        # The kernel takes 4,096 instructions, and skips 255 at most.
        assert len(program) // 8 < 4096


def test_landlock_of_every_version() -> None:
    assert [len(ruleset(version)) for version in range(1, 9)] == [8, 8, 8, 16, 16, 24, 24, 24]
