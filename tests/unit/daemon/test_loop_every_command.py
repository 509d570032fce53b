"""No command is left out of those that are watched for how long they hold the hosts' loop."""

from __future__ import annotations

from protocol.commands import COMMANDS
from tests.unit.daemon import test_loop_copies, test_loop_groups, test_loop_pairs, test_loop_site

STORIES = (test_loop_copies, test_loop_groups, test_loop_pairs, test_loop_site)


def test_every_command_is_watched() -> None:
    """Each story asserts that it gave what it says here, and that all of it did its work."""
    watched = {kind for story in STORIES for kind in story.COMMANDS_GIVEN}
    assert watched == set(COMMANDS), "a new command belongs into one of these stories"
