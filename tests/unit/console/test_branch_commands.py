"""Branches: what is listed, compared and dropped."""

from __future__ import annotations

from collections.abc import Callable

from protocol.commands.branch import BranchDiff, BranchDrop, BranchListReply
from protocol.errors import ExitCode
from tests.unit.console.conftest import Ran, run_on_terminal
from tests.unit.console.stub_site import BRANCH, StubSite

Run = Callable[..., Ran]
NAME = "00000000000000cd"


def test_a_branch_is_a_line_with_both_its_ends(stub: StubSite, farshore: Run) -> None:
    lines = farshore("branch", "list", "vm1", "--site", str(stub.directory)).out.splitlines()
    assert lines[0].split()[:3] == ["BRANCH", "FROM", "TO"]
    assert lines[1].split()[:5] == [NAME, "8f3a000000000001:8192", f"{NAME}:20480", "12", "KiB"]
    stub.replies["branch.list"] = BranchListReply(branches=[])
    ran = farshore("branch", "list", "vm1", "--site", str(stub.directory))
    assert (ran.code, ran.out) == (0, "")
    assert "no branches" in ran.err


def test_a_diff_shows_frames_contents_and_how_to_read_the_branch(stub: StubSite, farshore: Run) -> None:
    ran = farshore("branch", "diff", "vm1", NAME, "--limit", "1", "--site", str(stub.directory))
    assert ran.code == 0
    assert stub.asked == [BranchDiff(group="vm1", timeline=NAME, limit=1)]
    assert f"vm1/root@{NAME}:20480" in ran.out
    assert "data: equal" in ran.out
    assert "root: 8 KiB differ" in ran.out
    assert "4096 +8192" in ran.out
    assert f"{NAME}:8192" in ran.out
    assert "2 more frames: --limit" in ran.err


def test_a_branch_is_dropped_by_its_name(stub: StubSite, farshore: Run) -> None:
    site = ("--site", str(stub.directory))
    refused = farshore("branch", "drop", "vm1", NAME, *site)
    assert refused.code == ExitCode.UNSAFE
    assert f"next: add --confirm {NAME}\n" in refused.err
    assert stub.asked == []
    ran = farshore("branch", "drop", "vm1", NAME, "--confirm", NAME, *site)
    assert "12 KiB freed" in ran.out
    assert stub.asked == [BranchDrop(group="vm1", timeline=NAME, confirm=NAME)]


def test_a_person_sees_the_branch_before_it_is_forgotten(stub: StubSite) -> None:
    words = ("branch", "drop", "vm1", NAME, "--site", str(stub.directory))
    screen, code = run_on_terminal(words, prompt="for good: ", answer=NAME)
    assert code == 0, screen
    assert BRANCH.writer in screen
    assert stub.asked[-1] == BranchDrop(group="vm1", timeline=NAME, confirm=NAME)
