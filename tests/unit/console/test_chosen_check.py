"""A check that would run nothing is refused: everything would be called good."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.mounts import check_hooks
from console.mounts.check_hooks import find_hook
from console.mounts.chosen_check import ChosenCheck, choose_check
from protocol.errors import UsageError


def chosen(check: str) -> ChosenCheck:
    """What is made of --check."""
    return choose_check(check=check, hook=None, args=(), user=None, raw=False, partitions=())


@pytest.mark.parametrize(
    "check", ["", " ", "\n\t", "# test -s x", "  # a\n#b\n", "/bin/look &", "true\n x & "]
)
def test_a_check_that_runs_nothing_or_is_not_waited_for_is_refused(check: str) -> None:
    with pytest.raises(UsageError, match="call everything good"):
        chosen(check)


@pytest.mark.parametrize(
    "check", ["true", "# why\ntrue", "server &\nlook", "a && b", "echo \\&", "test x # &c"]
)
def test_other_checks_are_as_they_are(check: str) -> None:
    assert chosen(check).command == check


def test_an_empty_file_is_no_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_hooks, "OWN", tmp_path)
    (tmp_path / "mine").write_text("\n")
    (tmp_path / "mine").chmod(0o755)
    with pytest.raises(UsageError, match="call everything good"):
        find_hook("mine")
