"""The guard process itself: when it thaws, and what lies in the data directory meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from protocol.guarding import THAW_LINE, GuardOrder, GuardReport, decode_order, decode_report, encode_line
from tests.support.pairs import wait_until

ROOT = Path(__file__).resolve().parents[3]
END_TIMEOUT_S = 60.0
WAIT_UNTIL_READY = 'while [ "$(tail -n 1 done)" != ready1 ]; do sleep 0.02; done'


class Bench:
    """Guards in one data directory, whose hook notes what it does in `done`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._guards: list[subprocess.Popen[bytes]] = []

    @property
    def done(self) -> list[str]:
        """What ran, in order."""
        file = self.directory / "done"
        return file.read_text().split() if file.exists() else []

    @property
    def note(self) -> Path:
        """Where hook `h` is noted."""
        return self.directory / "frozen" / "h.json"

    def order(self, freeze: str, thaw: str = "true", *, timeout_s: float = 60.0) -> GuardOrder:
        """Both as lines of shell."""
        noted = f"cd {self.directory}; "
        return GuardOrder(
            hook="h",
            group="g",
            freeze=("sh", "-c", f"{noted} echo freeze >> done; {freeze}") if freeze else (),
            thaw=("sh", "-c", f"{noted} echo thaw >> done; {thaw}"),
            timeout_s=timeout_s,
            directory=str(self.directory),
        )

    def start(self, order: GuardOrder) -> subprocess.Popen[bytes]:
        """A guard with that order."""
        guard = subprocess.Popen(
            [sys.executable, "-m", "site_primary.guard"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._guards.append(guard)
        assert guard.stdin is not None
        guard.stdin.write(encode_line(order))
        guard.stdin.flush()
        return guard

    def close(self) -> None:
        """End what still runs."""
        for guard in self._guards:
            guard.kill()
            guard.wait()
            for pipe in (guard.stdin, guard.stdout):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def report(guard: subprocess.Popen[bytes]) -> GuardReport:
    """Its next report."""
    assert guard.stdout is not None
    return decode_report(guard.stdout.readline())


def test_the_note_is_there_before_the_freeze_and_gone_after_the_thaw(bench: Bench) -> None:
    guard = bench.start(bench.order("cp frozen/h.json seen"))
    assert report(guard).state == "frozen"
    assert decode_order((bench.directory / "seen").read_bytes()).hook == "h"
    assert guard.stdin is not None
    guard.stdin.write(THAW_LINE)
    guard.stdin.flush()
    ended = report(guard)
    assert (ended.state, ended.late, ended.stuck, ended.failure) == ("ended", False, "", "")
    assert guard.wait(END_TIMEOUT_S) == 0
    assert not bench.note.exists()
    assert bench.done == ["freeze", "thaw"]


@pytest.mark.parametrize("how", ["input ends", "SIGTERM", "time-out"])
def test_it_thaws_without_being_told(bench: Bench, how: str) -> None:
    guard = bench.start(bench.order("true", timeout_s=1.0 if how == "time-out" else 60.0))
    assert report(guard).state == "frozen"
    if how == "input ends":
        assert guard.stdin is not None
        guard.stdin.close()
    elif how == "SIGTERM":
        guard.send_signal(signal.SIGTERM)
    ended = report(guard)
    assert (ended.late, ended.stuck, bench.done) == (True, "", ["freeze", "thaw"])


def test_a_freeze_that_cannot_run_is_thawed(bench: Bench) -> None:
    order = bench.order("true")
    missing = GuardOrder(
        hook="h", group="g", freeze=("/nowhere/freeze",), thaw=order.thaw, timeout_s=5.0,
        directory=order.directory,
    )  # fmt: skip
    ended = report(bench.start(missing))
    assert "No such file" in ended.failure
    assert not ended.timed_out
    assert bench.done == ["thaw"]


@pytest.mark.parametrize("thaw_waits", [False, True])
def test_a_thaw_that_no_command_can_be_is_reported_and_keeps_its_note(bench: Bench, thaw_waits: bool) -> None:
    """No site.toml makes such an order; a guard that died of it would leave hosts frozen, and tell nobody."""
    order = msgspec.structs.replace(bench.order("true"), thaw=("sh", "-c", "x\0y"), thaw_waits=thaw_waits)
    guard = bench.start(order)
    assert report(guard).state == "frozen"
    assert guard.stdin is not None
    guard.stdin.close()
    ended = report(guard)
    assert (ended.state, ended.stuck) == ("ended", "sh: embedded null byte")
    assert bench.note.exists()


def test_a_freeze_that_no_command_can_be_is_thawed(bench: Bench) -> None:
    ended = report(bench.start(msgspec.structs.replace(bench.order("true"), freeze=("a\0b",))))
    assert (ended.state, ended.stuck) == ("ended", "")
    assert "embedded null byte" in ended.failure
    assert bench.done == ["thaw"]


def test_what_a_freeze_leaves_running_does_not_hold_it_up(bench: Bench) -> None:
    guard = bench.start(bench.order("sleep 30 & echo $! > left"))
    assert report(guard).state == "frozen"
    subprocess.run(["kill", (bench.directory / "left").read_text().strip()], check=True)


def test_a_failed_thaw_keeps_its_note(bench: Bench) -> None:
    guard = bench.start(bench.order("true", "echo no such disk >&2; exit 9"))
    report(guard)
    assert guard.stdin is not None
    guard.stdin.close()
    ended = report(guard)
    assert "ended with 9: no such disk" in ended.stuck
    assert bench.note.exists()
    assert bench.done[1:] == ["thaw"] * len(bench.done[1:])


def test_two_guards_of_one_hook_follow_one_another(bench: Bench) -> None:
    first = bench.start(bench.order("true"))
    assert report(first).state == "frozen"
    refused = report(bench.start(bench.order("true", timeout_s=0.5)))
    assert (refused.failure, refused.timed_out) == ("another backup holds hook h", True)
    assert bench.done == ["freeze"], "what another holds frozen is not thawed"
    follower = bench.start(bench.order(""))
    assert first.stdin is not None
    first.stdin.close()
    assert report(first).state == "ended"
    assert not report(follower).late, "nothing was left to thaw"
    assert bench.done == ["freeze", "thaw"]


def test_a_note_that_was_left_is_thawed(bench: Bench) -> None:
    first = bench.start(bench.order("true"))
    report(first)
    first.kill()
    first.wait()
    ended = report(bench.start(bench.order("")))
    assert (ended.late, ended.stuck) == (True, "")
    assert bench.done == ["freeze", "thaw"]
    assert not bench.note.exists()


def test_a_thaw_that_waits_is_started_first_and_begins_when_the_guard_is_killed(bench: Bench) -> None:
    order = bench.order("true")
    ready = f"cd {bench.directory}; echo ready$FARSHORE_WAIT >> done; read line; echo thaw >> done"
    waiting = GuardOrder(
        hook="h", group="g", freeze=("sh", "-c", f"cd {bench.directory}; {WAIT_UNTIL_READY}"),
        thaw=("sh", "-c", ready), thaw_waits=True, timeout_s=60.0, directory=order.directory,
    )  # fmt: skip
    guard = bench.start(waiting)
    assert report(guard).state == "frozen"
    assert bench.done == ["ready1"]
    assert guard.stdin is not None
    guard.stdin.write(THAW_LINE)
    guard.stdin.flush()
    ended = report(guard)
    assert (ended.stuck, ended.late, bench.done) == ("", False, ["ready1", "thaw"])
    killed = bench.start(waiting)
    assert report(killed).state == "frozen"
    killed.kill()
    wait_until(lambda: bench.done[2:] == ["ready1", "thaw"], END_TIMEOUT_S)


def test_an_order_that_makes_no_sense_runs_nothing(bench: Bench) -> None:
    guard = bench.start(bench.order("true"))
    report(guard)
    broken = subprocess.run(
        [sys.executable, "-m", "site_primary.guard"], cwd=ROOT, input=b'{"hook": "../h"}\n',
        capture_output=True, timeout=END_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert (broken.returncode, broken.stdout) == (2, b"")
